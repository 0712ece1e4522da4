# io.py: tensors in files. The format is safetensors (https://github.com/huggingface/safetensors): 8 bytes with the
# length of a JSON header, the header {name: {dtype, shape, data_offsets}}, the data. `save` adds a tree of containers
# and numbers as JSON in the header's metadata: a checkpoint is one file without pickle. A damaged file is a ValueError
# of one line.
from __future__ import annotations
import json, os, struct
from typing import Any, Mapping
import numpy as np
from picograd.dtype import DType, dtypes
from picograd.helpers import prod
from picograd.runtime.device import buffer_holding, numpy_dtype
from picograd.storage import Form, host_bits
from picograd.common import device_name
from picograd.library import Tensor
from picograd.tensor import over

CODES = {"F64": dtypes.float64, "I64": dtypes.int64, "U64": dtypes.uint64,           # wide first: the data's order
         "F32": dtypes.float32, "I32": dtypes.int32, "U32": dtypes.uint32,
         "F16": dtypes.float16, "BF16": dtypes.bfloat16, "I16": dtypes.int16, "U16": dtypes.uint16,
         "I8": dtypes.int8, "U8": dtypes.uint8, "BOOL": dtypes.bool}
NAMES = {dtype: code for code, dtype in CODES.items()}
Path = str | os.PathLike

# ---- safetensors -----------------------------------------------------------------------------------------------------

def host_bytes(t: Tensor) -> bytes:
  """The elements in row-major order, little-endian."""
  return host_bits(t.host(), t.dtype).tobytes()

def save_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
  """Writes named tensors. The file appears complete or not at all: it is written under another name and renamed."""
  order = sorted(tensors, key=lambda name: (list(NAMES).index(tensors[name].dtype), name))
  header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
  end = 0
  for name in order:
    t = tensors[name]
    start, end = end, end + t.numel() * t.dtype.itemsize
    header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [start, end]}
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  temporary = f"{os.fspath(path)}.{os.getpid()}.part"
  try:
    with open(temporary, "wb") as f:
      f.write(struct.pack("<Q", len(text)) + text)
      for name in order: f.write(host_bytes(tensors[name]))
    os.replace(temporary, path)
  finally:
    if os.path.exists(temporary): os.unlink(temporary)

def read_header(path: Path) -> tuple[dict[str, Any], np.ndarray]:
  """(header, the data's bytes as a memory map). ValueError for a file that is damaged or of another kind."""
  size = os.path.getsize(path)
  if size < 8: raise ValueError(f"{path}: not a safetensors file, it has only {size} bytes")
  data = np.memmap(path, np.uint8, "r")
  if bytes(data[:4]) == b"PK\x03\x04": raise ValueError(f"{path}: a pickle archive of PyTorch: convert it first")
  length, = struct.unpack("<Q", data[:8].tobytes())
  if length > size - 8:
    raise ValueError(f"{path}: truncated, or not a safetensors file: a header of {length} bytes in a file of {size}")
  try: header = json.loads(data[8:8 + length].tobytes())
  except ValueError: raise ValueError(f"{path}: not a safetensors file, the header is no valid JSON") from None
  if not isinstance(header, dict): raise ValueError(f"{path}: not a safetensors file, the header is no JSON object")
  return header, data[8 + length:]

def checked_entry(path: Path, name: str, entry: Any) -> tuple[DType, tuple[int, ...], int, int]:
  """(dtype, shape, first byte, end) of a header entry. ValueError where they contradict each other."""
  try:
    code, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    fine = all(type(n) is int and n >= 0 for n in (*shape, start, end))
  except (TypeError, KeyError, ValueError): fine = False
  if not fine: raise ValueError(f"{path}: corrupt, the header's entry of tensor {name!r} is {entry!r}")
  if code not in CODES: raise ValueError(f"{path}: tensor {name!r} has dtype {code!r}, known are {', '.join(CODES)}")
  if end - start != prod(shape) * CODES[code].itemsize:
    raise ValueError(f"{path}: corrupt, tensor {name!r} of shape {shape} and dtype {code} has {end - start} bytes")
  return CODES[code], shape, start, end

def read_tensors(path: Path, device: Any = None) -> tuple[dict[str, Tensor], dict[str, str]]:
  """(tensors by name, metadata). ValueError where the data do not fill the file exactly."""
  header, data = read_header(path)
  metadata = header.pop("__metadata__", {})
  entries = {name: checked_entry(path, name, entry) for name, entry in header.items()}
  position = 0
  for _, _, start, end in sorted(entries.values(), key=lambda entry: entry[2:]):
    if start != position: raise ValueError(f"{path}: corrupt, a tensor starts at byte {start} instead of {position}")
    position = end
  if position != len(data):
    problem = "truncated" if position > len(data) else "corrupt"
    raise ValueError(f"{path}: {problem}, the header describes {position} bytes of data and the file has {len(data)}")
  tensors = {name: on_device(data[start:end], dtype, shape, device)
             for name, (dtype, shape, start, end) in entries.items()}
  return tensors, metadata

def on_device(raw: np.ndarray, dtype: DType, shape: tuple[int, ...], device: Any) -> Tensor:
  return over(buffer_holding(np.frombuffer(raw, numpy_dtype(dtype)), device_name(device)), Form(shape, dtype))

def load_safetensors(path: Path, device: Any = None) -> dict[str, Tensor]:
  """The tensors of a file by name, on a device. The file is memory-mapped: each byte is read once, when it is copied.
  ValueError in one line for a damaged file."""
  return read_tensors(path, device)[0]

# ---- checkpoints: any nesting of dicts, lists and tuples -------------------------------------------------------------

def save(obj: Any, path: Path) -> None:
  """Writes a tensor, number, string or None, or dicts, lists and tuples of them. TypeError names what else it meets."""
  tensors: dict[str, Tensor] = {}
  tree = json.dumps(encode(obj, "", tensors))
  save_safetensors(tensors, path, {"tree": tree})

def encode(obj: Any, place: str, tensors: dict[str, Tensor]) -> Any:
  """obj as JSON: numbers and strings as they are, the rest as {kind: content}. Tensors go to the table, by place."""
  if isinstance(obj, np.generic): obj = obj.item()
  if obj is None or isinstance(obj, (bool, int, float, str)): return obj
  if isinstance(obj, Tensor):
    name = place or "tensor"
    while name in tensors: name += "_"
    tensors[name] = obj
    return {"tensor": name}
  def inner(key: Any, value: Any) -> Any: return encode(value, f"{place}.{key}" if place else str(key), tensors)
  if isinstance(obj, Mapping): return {"dict": [[encode(k, place, {}), inner(k, v)] for k, v in obj.items()]}
  if isinstance(obj, (list, tuple)):
    return {"list" if isinstance(obj, list) else "tuple": [inner(i, v) for i, v in enumerate(obj)]}
  raise TypeError(f"cannot save the {type(obj).__name__} at {place or 'the top'}: tensors, numbers, strings, dicts, "
                  f"lists and tuples can be saved; of a Module save state_dict()")

def decode(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
  """The inverse of encode."""
  if not isinstance(tree, dict): return tree
  (kind, content), = tree.items()
  if kind == "tensor": return tensors[content]
  if kind == "dict": return {decode(k, tensors): decode(v, tensors) for k, v in content}
  values = [decode(v, tensors) for v in content]
  return values if kind == "list" else tuple(values)

def load(path: Path, map_location: Any = None, weights_only: bool = True) -> Any:
  """What save wrote, tensors on device map_location. Of a safetensors file from elsewhere, the dict of its tensors."""
  tensors, metadata = read_tensors(path, map_location)
  if "tree" not in metadata: return tensors
  try: return decode(json.loads(metadata["tree"]), tensors)
  except (ValueError, KeyError, TypeError):
    raise ValueError(f"{path}: corrupt, the tree of the checkpoint is damaged") from None
