# test_llama.py: llama.py as a program (the expected story, wrong input, Ctrl-C) and as a network (logits against
# transformers, token by token against the whole prompt). Data lies in $PICOGRAD_DATA, by default ../shared/data beside
# the repository; a test whose data or library is absent is skipped.
import dataclasses, json, os, signal, struct, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
import llama
import picograd
from picograd.helpers import Counters
from picograd.io import load_safetensors, save_safetensors

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("PICOGRAD_DATA") or ROOT.parent / "shared" / "data")
STORIES, PIECES, EXPECTED = DATA / "stories260K.bin", DATA / "tok512.bin", DATA / "stories260K.expected.txt"
STORY_FLAGS = ["--model", str(STORIES), "--tokenizer", str(PIECES)]
needs_data = pytest.mark.skipif(not STORIES.exists(), reason=f"{STORIES} is absent")
COMMAND = os.environ.get("LLAMA_COMMAND", "").split() or [sys.executable, str(ROOT / "llama.py")]

def run_llama(*flags: object, **environment: str) -> subprocess.CompletedProcess:
  command = COMMAND + [str(flag) for flag in flags]
  return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env={**os.environ, **environment})

def small_config(**changes) -> llama.Config:
  sizes = dict(dim=32, hidden_dim=48, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=11, context=32)
  return llama.Config(**{**sizes, "tied": False, **changes})

# ---- the program -----------------------------------------------------------------------------------------------------

@needs_data
@pytest.mark.parametrize("environment", [{}, {"DEVICE": "NUMPY"}, {"EAGER": "1"}], ids=["default", "numpy", "eager"])
def test_tells_the_expected_story(environment):
  result = run_llama(*STORY_FLAGS, "--temperature", 0, "--steps", 200, **environment)
  assert result.returncode == 0, result.stderr
  assert result.stdout == EXPECTED.read_text()
  assert "tokens/s" in result.stderr

def test_without_a_model_the_bundled_one_tells_a_story():
  result = run_llama("--steps", 40)
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith(llama.BUNDLED_PROMPT)
  assert len(result.stdout) == 42                        # 40 positions give 41 characters, and the newline

@needs_data
def test_a_seed_fixes_the_story():
  flags = [*STORY_FLAGS, "--temperature", 1.2, "--top-k", 20, "--top-p", 0.9, "--steps", 20, "--prompt", "Zoé saw"]
  first, second, other = (run_llama(*flags, "--seed", seed).stdout for seed in (1, 1, 2))
  assert first == second != other
  assert first.startswith("Zoé saw")

@needs_data
def test_ctrl_c_ends_cleanly():
  process = subprocess.Popen([*COMMAND, *STORY_FLAGS, "--steps", "512", "--temperature", "0"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  start = process.stdout.read(20)
  process.send_signal(signal.SIGINT)
  rest, errors = process.communicate()
  assert process.returncode in (0, 130)                  # 0: it was faster than the signal
  assert (start + rest).endswith(b"\n")
  assert b"Traceback" not in errors
  assert b"tokens/s" in errors

@pytest.mark.parametrize("flags", [
  ["--steps", "0"], ["--steps", "x"], ["--temperature", "-1"], ["--temperature", "nan"], ["--top-k", "0"],
  ["--top-p", "1.5"], ["--seed", "-1"], ["--unknown"], ["--device", "ABACUS"], ["--model", "absent.bin"],
  ["--model", "absent"]], ids=" ".join)
def test_a_wrong_flag_gives_one_line(flags):
  assert_one_line(run_llama(*flags), flags[-1])

@needs_data
def test_wrong_files_give_one_line(tmp_path):
  (tmp_path / "config.json").write_text('{"model_type": "llama"}')
  assert_one_line(run_llama("--model", tmp_path), "hidden_size")
  assert_one_line(run_llama("--model", truncated(STORIES, tmp_path), "--tokenizer", PIECES), "truncated")
  assert_one_line(run_llama("--model", PIECES, "--tokenizer", PIECES), "tok512.bin")
  assert_one_line(run_llama("--model", STORIES), "--tokenizer")
  assert_one_line(run_llama("--model", STORIES, "--tokenizer", truncated(PIECES, tmp_path)), "tok512.bin")
  assert_one_line(run_llama("--model", STORIES, "--tokenizer", tmp_path / "absent.bin"), "absent.bin")

@needs_data
def test_a_prompt_that_is_too_long_gives_one_line():
  assert_one_line(run_llama(*STORY_FLAGS, "--prompt", "word " * 600), "context")
  assert_one_line(run_llama(*STORY_FLAGS, "--prompt", "word " * 20, "--steps", 5), "--steps")

def test_a_truncated_safetensors_file_gives_one_line(tmp_path):
  for name in ("config.json", "vocab.json"): (tmp_path / name).write_bytes((llama.BUNDLED_MODEL / name).read_bytes())
  truncated(llama.BUNDLED_MODEL / "model.safetensors", tmp_path)
  assert_one_line(run_llama("--model", tmp_path), "model.safetensors")

def truncated(path: Path, directory: Path) -> Path:
  copy = directory / path.name
  copy.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
  return copy

def assert_one_line(result: subprocess.CompletedProcess, mention: str) -> None:
  assert result.returncode == 1
  assert result.stderr.startswith("llama.py: ") and result.stderr.count("\n") == 1, result.stderr
  assert mention in result.stderr
  assert result.stdout == ""

# ---- the network -----------------------------------------------------------------------------------------------------

def test_decoding_equals_one_pass_over_all_tokens():
  picograd.manual_seed(0)
  model = llama.Llama(small_config(), 32)
  tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
  whole = model(picograd.tensor([tokens])).detach().numpy()[0]                           # (T, vocab_size)
  cache = model.new_cache()
  assert np.allclose(model.predict(tokens[:4], 0, cache), whole[3], atol=1e-5)
  for position in range(4, len(tokens)):
    assert np.allclose(model.predict(tokens[position:position + 1], position, cache), whole[position], atol=1e-5)

def test_a_token_of_twelve_layers_is_at_most_seventy_kernels():
  """Five for each layer, with norms, rotation, cache and gates in the products' and attention's, and a few in all."""
  model = llama.Llama(dataclasses.replace(small_config(), n_layers=12), 64)
  cache = model.new_cache()
  for position in range(3):
    Counters.reset()
    model.predict([5], position, cache)
  assert 12 < Counters.kernels <= 70 and model.one_step.captures == 1

@pytest.mark.parametrize("weights", llama.PRECISIONS)
def test_passes_of_any_length_give_the_same_logits(weights):
  """Padding to powers of two, a prompt in pieces, and few or many positions to look at change nothing."""
  model = llama.Llama(small_config(context=200), room=200)
  for module in model.modules():
    if isinstance(module, (picograd.nn.Linear, picograd.nn.Embedding)): module.to(llama.PRECISIONS[weights])
  tokens = [int(t) for t in np.random.default_rng(0).integers(0, 11, 150)]
  with picograd.no_grad(): whole = model(picograd.tensor([tokens])).numpy()[0]
  cache, at = model.new_cache(), 0
  for length in (5, 1, 1, 60, 3, 1, 64, 1, 14):
    logits = model.predict(tokens[at:at + length], at, cache)
    at += length
    np.testing.assert_allclose(logits, whole[at - 1], rtol=1e-4, atol=1e-5)
  assert at == 150

def test_a_decoding_pass_writes_only_its_position():
  model = llama.Llama(small_config(), 32)
  cache = model.new_cache()
  model.predict([1, 2], 0, cache)
  before = [part.numpy().copy() for part in cache[1]]
  model.predict([3], 2, cache)
  for part, old in zip(cache[1], before):
    changed = (part.numpy() != old).any(axis=(0, 1, 3))                                  # (L,)
    assert np.flatnonzero(changed).tolist() == [2]

def test_llama3_scaling_keeps_fast_pairs_and_slows_slow_ones():
  scaling = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64.0)
  plain = llama.rotary_frequencies(small_config(head_dim=16))
  scaled = llama.rotary_frequencies(small_config(head_dim=16, rope_scaling=scaling))
  assert scaled[0] == plain[0]
  assert np.isclose(scaled[-1], plain[-1] / 8)
  assert (np.diff(scaled) < 0).all()

def save_transformers_llama(directory: Path, **changes) -> tuple[list[int], np.ndarray]:
  """Writes a llama with random weights; returns some tokens and the logits that transformers gives for them."""
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  torch.manual_seed(0)
  rotary = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=32)
  sizes = dict(vocab_size=300, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=8,
               num_key_value_heads=4, max_position_embeddings=256, initializer_range=0.05, rope_parameters=rotary)
  model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**sizes, **changes})).eval()
  model.save_pretrained(directory)
  tokens = np.random.default_rng(0).integers(0, sizes["vocab_size"], 100).tolist()
  with torch.no_grad(): logits = model(torch.tensor([tokens])).logits[0].numpy()         # (T, vocab_size)
  return tokens, logits

@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True, "head_dim": 16}], ids=["untied", "tied"])
def test_logits_equal_those_of_transformers(tmp_path, changes):
  tokens, expected = save_transformers_llama(tmp_path, **changes)
  config = llama.read_config(tmp_path)
  assert config.rope_scaling is not None and config.tied == ("tie_word_embeddings" in changes)
  model = llama.load_model(tmp_path, config, 128)
  assert np.abs(model(picograd.tensor([tokens])).detach().numpy()[0] - expected).max() < 1e-4
  cache = model.new_cache()
  assert np.abs(model.predict(tokens[:90], 0, cache) - expected[89]).max() < 1e-4
  for position in range(90, len(tokens)):
    logits = model.predict(tokens[position:position + 1], position, cache)
    assert np.abs(logits - expected[position]).max() < 1e-4

def test_shards_are_read_through_their_index(tmp_path):
  tokens, expected = save_transformers_llama(tmp_path)
  everything = load_safetensors(str(tmp_path / "model.safetensors"))
  names = sorted(everything)
  shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
  for file, part in shards.items(): save_safetensors({name: everything[name] for name in part}, str(tmp_path / file))
  (tmp_path / "model.safetensors").unlink()
  weight_map = {name: file for file, part in shards.items() for name in part}
  (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
  model = llama.load_model(tmp_path, llama.read_config(tmp_path), 100)
  assert np.abs(model.predict(tokens, 0, model.new_cache()) - expected[-1]).max() < 1e-4

@pytest.mark.parametrize("tied", [True, False])
def test_a_llama2c_checkpoint_equals_the_same_weights_in_hf_layout(tmp_path, tied):
  rotary = dict(rope_type="default", rope_theta=10000.0)
  changes = dict(rope_parameters=rotary, tie_word_embeddings=tied, rms_norm_eps=1e-5)
  tokens, expected = save_transformers_llama(tmp_path, **changes)
  config, path = llama.read_config(tmp_path), tmp_path / "model.bin"
  found = {name: tensor.numpy() for name, tensor in load_safetensors(str(tmp_path / "model.safetensors")).items()}
  write_checkpoint(path, config, found)
  assert llama.read_config(path) == dataclasses.replace(config, stop_tokens=(llama.BOS,))
  model = llama.load_model(path, llama.read_config(path), 128)
  assert np.abs(model.predict(tokens, 0, model.new_cache()) - expected[-1]).max() < 1e-4
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match="truncated"): llama.load_model(path, llama.read_config(path), 128)

def test_a_loaded_model_is_in_memory(tmp_path):
  """Else the first pass would be slow: it would make the weights."""
  save_transformers_llama(tmp_path)
  model = llama.load_model(tmp_path, llama.read_config(tmp_path), 128, "bfloat16")
  cache, kernels = model.new_cache(), []
  for _ in range(2):
    Counters.reset()
    model.predict([1], 0, cache)
    kernels.append(Counters.kernels)
  assert kernels[0] == kernels[1]

def write_checkpoint(path: Path, c: llama.Config, found: dict[str, np.ndarray]) -> None:
  """llama2.c's format, where rotary pairs are neighbours."""
  vocab_size = c.vocab_size if c.tied else -c.vocab_size
  sizes = (c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.n_kv_heads, vocab_size, c.context)
  kinds = ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj")
  arrays = [found["model.embed_tokens.weight"]]
  for kind in kinds:
    for i in range(c.n_layers):
      weight = found[f"model.layers.{i}.{kind}.weight"]
      if kind.endswith(("q_proj", "k_proj")):
        weight = weight.reshape(-1, 2, c.head_dim // 2, c.dim).swapaxes(1, 2)
      arrays.append(weight)
  arrays += [found["model.norm.weight"], np.full((2, c.context, c.head_dim // 2), np.nan)]
  if not c.tied: arrays.append(found["lm_head.weight"])
  path.write_bytes(struct.pack("<7i", *sizes) + b"".join(array.astype("<f4").tobytes() for array in arrays))

# ---- tokenizers and sampling -----------------------------------------------------------------------------------------

def write_pieces(path: Path, pieces: dict[bytes, float]) -> llama.PieceTokenizer:
  data = struct.pack("<i", max(map(len, pieces)))
  for piece, score in pieces.items(): data += struct.pack("<fi", score, len(piece)) + piece
  path.write_bytes(data)
  return llama.PieceTokenizer(path, len(pieces))

def test_pieces_merge_by_score_and_unknown_characters_become_bytes(tmp_path):
  special = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % byte for byte in range(256)]
  scores = dict.fromkeys(special, 0.0)
  scores |= {b" ": -9.0, b"a": -9.0, b"b": -9.0, b"ab": -2.0, b" a": -1.0, b"ba": -3.0}
  tokenizer = write_pieces(tmp_path / "tokenizer.bin", scores)
  pieces = [tokenizer.pieces[token] for token in tokenizer.encode("abab")]
  assert pieces == [b"<s>", b" a", b"b", b"ab"]           # " a" wins over "ab"; what is left of that merges next
  assert tokenizer.encode("") == [llama.BOS]
  assert tokenizer.decode(tokenizer.encode("aé b")) == "aé b"

def test_an_hf_tokenizer_round_trips(tmp_path):
  tokenizers = pytest.importorskip("tokenizers")
  inner = tokenizers.Tokenizer(tokenizers.models.BPE())
  inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  inner.decoder = tokenizers.decoders.ByteLevel()
  alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
  trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
  inner.train_from_iterator(["the cat sat on the mat"] * 3, trainer)
  inner.save(str(tmp_path / "tokenizer.json"))
  tokenizer = llama.read_tokenizer(None, tmp_path, inner.get_vocab_size())
  tokens = tokenizer.encode("the Zoé sat 🐈")
  assert tokenizer.decode(tokens) == "the Zoé sat 🐈"
  assert tokenizer.decode(tokens[:-1]).endswith("\ufffd")
  with pytest.raises(ValueError, match="empty prompt"): tokenizer.encode("")

def test_streaming_never_splits_a_character(capsys):
  texts = {1: "Zo", 2: "Zo\ufffd", 3: "Zoé", 4: "Zoé\ufffd"}
  llama.stream(iter([[0] * n for n in texts]), lambda tokens: texts[len(tokens)])
  assert capsys.readouterr().out == "Zoé\ufffd\n"

def test_sampling_follows_temperature_top_k_and_top_p():
  logits = np.log(np.array([0.1, 0.5, 0.15, 0.25], dtype=np.float32))
  def shares(temperature, top_k, top_p):
    sampler = llama.Sampler(temperature, top_k, top_p, np.random.default_rng(0))
    return np.bincount([sampler.choose(logits) for _ in range(2000)], minlength=4) / 2000
  assert shares(0, None, 1.0).tolist() == [0, 1, 0, 0]
  assert np.allclose(shares(1.0, None, 1.0), [0.1, 0.5, 0.15, 0.25], atol=0.04)
  assert np.allclose(shares(1.0, 2, 1.0), [0, 2 / 3, 0, 1 / 3], atol=0.04)
  assert np.allclose(shares(1.0, None, 0.6), [0, 2 / 3, 0, 1 / 3], atol=0.04)
  assert np.allclose(shares(0.5, None, 1.0), np.array([0.01, 0.25, 0.0225, 0.0625]) / 0.345, atol=0.04)
