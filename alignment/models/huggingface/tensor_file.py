"""Safetensors files: a header of JSON, then numbers, little-endian.

Format: 8 bytes, the length of the header; the header, `{name: {"dtype",
"shape", "data_offsets": [begin, end]}}`, spaces behind it; the data, in which
the tensors lie without holes or overlaps
(https://huggingface.co/docs/safetensors). Files are read by position, one
tensor at a time: a memory map would keep what was read in memory.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.folder_files import MAX_JSON, parse_json

FLOATS = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}
"""What weights are read from."""

BITS = {
  **{name: 8 * dtype.itemsize for name, dtype in FLOATS.items()},
  **{'C64': 64, 'I64': 64, 'U64': 64, 'I32': 32, 'U32': 32, 'I16': 16},
  **{'U16': 16, 'I8': 8, 'U8': 8, 'BOOL': 8, 'F4': 4},
  **{'F8_E4M3': 8, 'F8_E5M2': 8, 'F8_E8M0': 8, 'F6_E2M3': 6, 'F6_E3M2': 6},
  **{'F8_E4M3FNUZ': 8, 'F8_E5M2FNUZ': 8},
}
"""dtype of the format -> bits of a number, for checking sizes."""

MAX_DIMENSIONS = 32
_CHUNK = 2**20


class Stored(NamedTuple):
  """Where a tensor lies.

  Attributes:
    path: of its file.
    name: of the tensor.
    dtype: of the format, a key of `BITS`.
    shape: of the tensor.
    offset: of its first byte in the file.
    size: bytes.
  """

  path: pathlib.Path
  name: str
  dtype: str
  shape: tuple[int, ...]
  offset: int
  size: int


def read_header(path: os.PathLike | str) -> dict[str, Stored]:
  """Name -> where it lies, after every number of the header was checked.

  Raises:
    ModelError: a file that is too short, a header that is too long or no JSON,
      an unknown dtype, a size that shape and dtype do not have, tensors that
      overlap, leave holes or lie outside of the file.
  """
  path = pathlib.Path(path)
  with open(path, 'rb') as file:
    total = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, 'little')
    if len(start) < 8 or length > total - 8:
      raise _bad(path, f'header of {length} bytes in a file of {total}')
    if length > MAX_JSON:
      raise _bad(path, f'header of {length} bytes, more than {MAX_JSON}')
    text = file.read(length)
  if not text.startswith(b'{'):
    raise _bad(path, 'header does not start with {')
  header = parse_json(text, f'{path}, header')
  header.pop('__metadata__', None)
  data = 8 + length
  stored = {
    name: _stored(path, name, entry, data) for name, entry in header.items()
  }
  end = data
  for tensor in sorted(stored.values(), key=lambda t: (t.offset, t.size)):
    if tensor.offset != end:
      what = 'overlaps the one before' if tensor.offset < end else 'has a hole'
      raise _bad(path, f'tensor {tensor.name!r} {what} at byte {end}')
    end += tensor.size
  if end != total:
    raise _bad(path, f'{total} bytes, its tensors end at {end}')
  return stored


def read_tensor(stored: Stored) -> np.ndarray:
  """The numbers of a tensor, in the dtype of the file.

  Raises:
    ModelError: a dtype that is not among `FLOATS`, a file that ends too early,
      NaN or infinity.
  """
  place = f'{stored.path}, tensor {stored.name!r}'
  if stored.dtype not in FLOATS:
    raise ModelError(
      place,
      f'holds {stored.dtype}, quantised weights are not read',
      f'Save the model in one of {", ".join(FLOATS)}',
    )
  numbers = np.empty(stored.shape, FLOATS[stored.dtype])
  left = memoryview(numbers.reshape(-1).view(np.uint8))
  with open(stored.path, 'rb', buffering=0) as file:
    file.seek(stored.offset)
    while left:
      count = file.readinto(left)  # at most 2 GiB at a time on Linux
      if not count:
        raise _bad(stored.path, f'ends inside tensor {stored.name!r}')
      left = left[count:]
  check_finite(numbers, place)
  return numbers


def same_bytes(one: Stored, other: Stored) -> bool:
  """Whether two tensors of one shape and dtype hold the same; in pieces."""
  if (one.dtype, one.shape) != (other.dtype, other.shape):
    return False
  with open(one.path, 'rb') as left, open(other.path, 'rb') as right:
    left.seek(one.offset)
    right.seek(other.offset)
    for start in range(0, one.size, _CHUNK):
      size = min(_CHUNK, one.size - start)
      if left.read(size) != right.read(size):
        return False
  return True


def check_finite(numbers: np.ndarray, place: str) -> None:
  """Raises ModelError at NaN or infinity; in pieces, without a copy."""
  flat = numbers.reshape(-1)
  for start in range(0, flat.size, _CHUNK):
    if not np.isfinite(flat[start : start + _CHUNK]).all():
      raise ModelError(
        place,
        'holds NaN or infinity',
        'The training that made it diverged, or the file is damaged',
      )


def write_tensors(
  path: os.PathLike | str,
  shapes: Mapping[str, tuple[int, ...]],
  tensors: Iterable[np.ndarray],
  dtype: str = 'F32',
) -> None:
  """Writes a file tensor by tensor; only one of them is held at a time.

  The file is not written under a temporary name: the folder is.

  Args:
    path: of a file that does not exist.
    shapes: name -> shape, in the order of `tensors`.
    tensors: finite numbers of these shapes, rounded to `dtype`.
    dtype: a key of `FLOATS`.

  Raises:
    ModelError: NaN or infinity, also where rounding makes it.
    OSError: the disk is full, the file exists.
  """
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  begin = 0
  for name, shape in shapes.items():
    end = begin + math.prod(shape) * FLOATS[dtype].itemsize
    header[name] = {
      'dtype': dtype,
      'shape': list(shape),
      'data_offsets': [begin, end],
    }
    begin = end
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)  # so that the numbers are aligned
  with open(path, 'xb', buffering=0) as file:
    _write_all(file, len(text).to_bytes(8, 'little') + text)
    for (name, shape), numbers in zip(shapes.items(), tensors, strict=True):
      if numbers.shape != tuple(shape):
        raise ValueError(f'{name}={numbers.shape} must have shape {shape}')
      with np.errstate(over='ignore'):  # told by the check
        rounded = np.ascontiguousarray(numbers, FLOATS[dtype])
      check_finite(rounded, f'{path}, tensor {name!r}')
      _write_all(file, rounded.reshape(-1).view(np.uint8))
    os.fsync(file.fileno())


def _write_all(file, content) -> None:
  left = memoryview(content)
  while left:
    left = left[file.write(left) :]


def _stored(path: pathlib.Path, name: str, entry: Any, data: int) -> Stored:
  def number(value) -> bool:
    return type(value) is int and value >= 0

  if not isinstance(entry, dict) or set(entry) != {
    'dtype',
    'shape',
    'data_offsets',
  }:
    raise _bad(path, f'tensor {name!r} must have dtype, shape, data_offsets')
  dtype, shape, offsets = entry['dtype'], entry['shape'], entry['data_offsets']
  if not isinstance(dtype, str) or dtype not in BITS:
    raise _bad(path, f'tensor {name!r} has the unknown dtype {dtype!r:.40}')
  if (
    not isinstance(shape, list)
    or len(shape) > MAX_DIMENSIONS
    or not all(map(number, shape))
  ):
    raise _bad(path, f'tensor {name!r} has the shape {shape!r:.80}')
  if (
    not isinstance(offsets, list)
    or len(offsets) != 2
    or not all(map(number, offsets))
    or offsets[0] > offsets[1]
  ):
    raise _bad(path, f'tensor {name!r} has the offsets {offsets!r:.80}')
  size = offsets[1] - offsets[0]
  if math.prod(shape) * BITS[dtype] != 8 * size:
    raise _bad(
      path, f'tensor {name!r}: {dtype} {shape} does not take {size} bytes'
    )
  return Stored(path, name, dtype, tuple(shape), data + offsets[0], size)


def _bad(path: pathlib.Path, problem: str) -> ModelError:
  return ModelError(str(path), problem, 'Download or save the file again')
