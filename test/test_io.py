# Files: safetensors both ways with the reference library, checkpoints of nested containers, one-line errors for damage.
import json, struct
import numpy as np
import pytest
import picograd
from picograd import nn, optim
from picograd.io import load, load_safetensors, save, save_safetensors

FLOATS = ["float16", "bfloat16", "float32", "float64"]
INTS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]

def examples():
  tensors = {name: picograd.tensor([[0, 1, 1], [1, 0, 1]], dtype=getattr(picograd, name)) for name in FLOATS + INTS}
  return {**tensors, "scalar": picograd.tensor(2.5), "empty": picograd.zeros(0, 3)}

def test_every_dtype_returns(tmp_path):
  path = tmp_path / "x.safetensors"
  save_safetensors(examples(), path, {"made": "here"})
  loaded = load_safetensors(path)
  for name, t in examples().items():
    assert loaded[name].dtype is t.dtype and tuple(loaded[name].shape) == tuple(t.shape)
    assert loaded[name].tolist() == t.tolist()
  assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]

def test_the_reference_library_reads_and_writes(tmp_path):
  reference = pytest.importorskip("safetensors.torch")
  path = str(tmp_path / "x.safetensors")
  save_safetensors(examples(), path)
  theirs = reference.load_file(path)
  assert theirs["bfloat16"].tolist() == [[0, 1, 1], [1, 0, 1]] and str(theirs["bfloat16"].dtype) == "torch.bfloat16"
  reference.save_file(theirs, path)
  expected = {name: t.tolist() for name, t in examples().items()}
  assert {name: t.tolist() for name, t in load_safetensors(path).items()} == expected
  assert load(path)["scalar"].item() == 2.5

def test_checkpoint_resumes(tmp_path):
  model = nn.Linear(3, 2)
  optimizer = optim.AdamW(model.parameters(), lr=0.1)
  model(picograd.ones(1, 3)).sum().backward()
  optimizer.step()
  save({"model": model.state_dict(), "optim": optimizer.state_dict(), "step": 3}, tmp_path / "c.pt")
  saved = load(tmp_path / "c.pt")
  other = nn.Linear(3, 2)
  other.load_state_dict(saved["model"])
  resumed = optim.AdamW(other.parameters())
  resumed.load_state_dict(saved["optim"])
  group = resumed.param_groups[0]
  assert saved["step"] == 3 and group["lr"] == 0.1 and group["betas"] == (0.9, 0.999)
  other(picograd.ones(1, 3)).sum().backward()
  resumed.step()
  optimizer.step()
  assert np.allclose(other.weight.detach().numpy(), model.weight.detach().numpy())

def test_containers_return(tmp_path):
  tree = {"a": [1, 2.5, None, True, "text"], 3: (float("inf"), {"deep": [picograd.ones(2)]}), "none": {},
          "n": np.float32(0.5)}
  save(tree, tmp_path / "c.pt")
  back = load(tmp_path / "c.pt")
  assert back["a"] == tree["a"] and back[3][0] == float("inf") and back["none"] == {} and back["n"] == 0.5
  assert isinstance(back[3], tuple) and back[3][1]["deep"][0].tolist() == [1, 1]
  save(picograd.ones(3), tmp_path / "t.pt")
  assert load(tmp_path / "t.pt").tolist() == [1, 1, 1]

def test_what_cannot_be_saved_is_named(tmp_path):
  with pytest.raises(TypeError, match="cannot save the Linear at model.0"):
    save({"model": [nn.Linear(1, 1)]}, tmp_path / "c")
  assert not list(tmp_path.iterdir())

def damaged(tmp_path, change):
  path = tmp_path / "x.safetensors"
  save_safetensors({"w": picograd.ones(4, 4)}, path)
  path.write_bytes(change(path.read_bytes()))
  return path

def with_entry(data, **fields):
  length, = struct.unpack("<Q", data[:8])
  header = json.loads(data[8:8 + length])
  header["w"].update(fields)
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + data[8 + length:]

@pytest.mark.parametrize("change,message", [
  (lambda d: d[:5], "only 5 bytes"),
  (lambda d: d[:40], "truncated"),
  (lambda d: d[:-1], "truncated, the header describes 64 bytes"),
  (lambda d: d + b"x", "corrupt, the header describes 64 bytes of data and the file has 65"),
  (lambda d: d[:8] + b"x" * (len(d) - 8), "no valid JSON"),
  (lambda d: struct.pack("<Q", 2) + b"[]", "no JSON object"),
  (lambda d: b"PK\x03\x04" + d, "pickle"),
  (lambda d: with_entry(d, shape=[4, 5]), "of shape \\(4, 5\\) and dtype F32 has 64 bytes"),
  (lambda d: with_entry(d, dtype="Q4"), "dtype 'Q4'"),
  (lambda d: with_entry(d, shape=[-4, -4]), "entry of tensor 'w'"),
  (lambda d: with_entry(d, data_offsets=[8, 72]), "starts at byte 8"),
])
def test_damage_is_reported_in_one_line(tmp_path, change, message):
  with pytest.raises(ValueError, match=message) as error: load_safetensors(damaged(tmp_path, change))
  assert "\n" not in str(error.value) and "x.safetensors" in str(error.value)

def test_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError): load(tmp_path / "nothing")
