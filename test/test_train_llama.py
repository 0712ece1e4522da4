# test_train_llama.py: a small run learns, writes what llama.py reads, and continues in the same bits after a pause.
import csv, json
from pathlib import Path
import numpy as np
import pytest
import llama
import picograd
from extra import train_llama
from picograd.runtime import plan

TINY = ["--dim", "16", "--layers", "1", "--block", "16", "--batch", "4", "--steps", "12", "--warmup", "2",
        "--lr", "0.03", "--eval-every", "6"]

@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
  path = tmp_path_factory.mktemp("data") / "text.txt"
  path.write_text("the cat sat on the mat; the rat ate the oat. " * 40)
  return path

def train(text: Path, out: Path, *flags: str) -> Path:
  train_llama.main(["--data", str(text), "--out", str(out), *TINY, *flags])
  return out

def test_a_small_run_learns_and_writes_what_llama_reads(text, tmp_path):
  out = train(text, tmp_path)
  rows = list(csv.DictReader((out / "loss.csv").open()))
  assert [row["step"] for row in rows] == ["6", "12"]
  assert float(rows[1]["validation_loss"]) < float(rows[0]["validation_loss"])
  config = llama.read_config(out)
  model, tokenizer = llama.load_model(out, config, 16), llama.read_tokenizer(None, out, config.vocab_size)
  logits = model(picograd.tensor([tokenizer.encode("the cat")])).detach()
  assert logits.shape == (1, 7, config.vocab_size)
  report = json.loads((out / "training.json").read_text())
  assert report["command"].startswith("python extra/train_llama.py --data text.txt --seed 1337")
  assert abs(report["validation_loss"] - float(rows[1]["validation_loss"])) < 0.01       # float16 against float32

def test_a_paused_run_ends_in_the_same_bits(text, tmp_path):
  whole = train(text, tmp_path / "whole")
  paused = train(text, tmp_path / "paused", "--pause", "6")
  assert not (paused / "model.safetensors").exists()
  train(text, paused, "--resume")
  for name in ("model.safetensors", "loss.csv", "training.json"):
    assert (paused / name).read_bytes() == (whole / name).read_bytes()

def test_the_learning_rate_rises_then_falls():
  args = train_llama.parse_arguments(["--data", "text.txt", "--warmup", "10", "--steps", "100", "--lr", "1"])
  rates = np.array([train_llama.learning_rate(step, args) for step in range(101)])
  assert rates.argmax() in (9, 10) and rates.max() == 1
  assert (np.diff(rates[:10]) > 0).all() and (np.diff(rates[10:]) < 0).all()
  assert np.isclose(rates[100], train_llama.LAST_LR)

def test_a_text_too_short_to_validate_is_refused(tmp_path):
  (tmp_path / "text.txt").write_text("short")
  with pytest.raises(ValueError, match="--block 16"): train(tmp_path / "text.txt", tmp_path)

def test_all_steps_after_the_second_share_one_schedule(text, tmp_path):
  """The graph of a step depends neither on the learning rate nor on the order in which Python keeps its sets."""
  args = train_llama.parse_arguments(["--data", str(text), "--out", str(tmp_path), *TINY])
  corpus = train_llama.read_corpus(text)
  run = train_llama.begin(args, len(corpus.characters))
  for _ in range(2): train_llama.train_step(run, corpus, args)
  before = set(plan.plans)
  for _ in range(3): train_llama.train_step(run, corpus, args)
  assert set(plan.plans) == before
