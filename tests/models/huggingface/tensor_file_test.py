import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from alignment.models.huggingface import tensor_file
from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.tensor_file import (
  check_finite,
  read_header,
  read_tensor,
  same_bytes,
  write_tensors,
)


def random_tensors():
  generator = np.random.default_rng(7)
  shapes = {'a': (3, 5), 'scalar': (), 'b': (2, 1, 4), 'none': (0, 3)}
  return {
    name: generator.normal(size=shape).astype(np.float32)
    for name, shape in shapes.items()
  }


def written(path, tensors, dtype='F32'):
  shapes = {name: array.shape for name, array in tensors.items()}
  write_tensors(path, shapes, iter(tensors.values()), dtype)
  return path


def lying(path, header, data=b'', length=None):
  """A file with any header; `length` is what it says of itself."""
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  size = len(text) if length is None else length
  path.write_bytes(size.to_bytes(8, 'little') + text + data)
  return path


def entry(begin, end, shape=(2,), dtype='F32'):
  return {'dtype': dtype, 'shape': list(shape), 'data_offsets': [begin, end]}


@pytest.mark.parametrize('dtype', tensor_file.FLOATS)
def test_safetensors_reads_what_is_written(tmp_path, dtype):
  tensors = random_tensors()
  path = written(tmp_path / 'x', tensors, dtype)
  theirs = safetensors.numpy.load_file(path)
  assert set(theirs) == set(tensors)
  for name, array in tensors.items():
    assert theirs[name].dtype == tensor_file.FLOATS[dtype]
    rounded = array.astype(tensor_file.FLOATS[dtype])
    np.testing.assert_array_equal(theirs[name], rounded)


@pytest.mark.parametrize('dtype', tensor_file.FLOATS)
def test_what_safetensors_writes_is_read(tmp_path, dtype):
  tensors = {
    name: array.astype(tensor_file.FLOATS[dtype])
    for name, array in random_tensors().items()
  }
  safetensors.numpy.save_file(tensors, tmp_path / 'x', {'format': 'np'})
  stored = read_header(tmp_path / 'x')
  assert set(stored) == set(tensors)
  for name, array in tensors.items():
    read = read_tensor(stored[name])
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_bfloat16_is_rounded_to_the_nearest_and_even(tmp_path):
  numbers = np.random.default_rng(3).normal(size=999).astype(np.float32)
  bits = numbers.view(np.uint32)
  halfway = 0x7FFF + ((bits >> 16) & 1)
  expected = ((bits + halfway) >> 16).astype(np.uint16)
  stored = read_header(written(tmp_path / 'x', {'a': numbers}, 'BF16'))
  read = read_tensor(stored['a'])
  np.testing.assert_array_equal(read.view(np.uint16), expected)


def test_numbers_begin_at_multiples_of_eight(tmp_path):
  for length in range(1, 9):
    path = written(tmp_path / str(length), {'n' * length: np.ones(3)})
    assert read_header(path)['n' * length].offset % 8 == 0


HEADERS = {
  'shorter than its length': (b'{}', b'', 2000),
  'absurd length': (b'{}', b'', 2**63),
  'no JSON': (b'{"a": ', b'', None),
  'no UTF-8': (b'{"\xff": 1}', b'', None),
  'no object': (b'[1]', b'', None),
  'space before it': (b' {}', b'', None),
  'NaN': (b'{"__metadata__": NaN}', b'', None),
  'deep': (b'{"a":' * 100_000 + b'1' + b'}' * 100_000, b'', None),
  'deep lists': (b'{"a":' + b'[' * 100_000, b'', None),
  'entry twice': (
    b'{"a":%s,"a":%s}' % ((json.dumps(entry(0, 8)).encode(),) * 2),
    bytes(8),
    None,
  ),
  'entry no object': ({'a': 3}, b'', None),
  'entry without shape': (
    {'a': {'dtype': 'F32', 'data_offsets': [0, 8]}},
    bytes(8),
    None,
  ),
  'entry with more': ({'a': entry(0, 8) | {'strides': [1]}}, bytes(8), None),
  'unknown dtype': ({'a': entry(0, 8, dtype='Q4')}, bytes(8), None),
  'dtype no string': ({'a': entry(0, 8, dtype=['F32'])}, bytes(8), None),
  'negative shape': ({'a': entry(0, 8, (-2,))}, bytes(8), None),
  'two negative': ({'a': entry(0, 8, (-2, -1))}, bytes(8), None),
  'shape of true': ({'a': entry(0, 4, (True,))}, bytes(4), None),
  'shape of floats': ({'a': entry(0, 8, (2.0,))}, bytes(8), None),
  'shape too long': ({'a': entry(0, 4, (1,) * 33)}, bytes(4), None),
  'shape of more bytes': ({'a': entry(0, 8, (2**50,))}, bytes(8), None),
  'shape that overflows': ({'a': entry(0, 8, (2**62, 4))}, bytes(8), None),
  'dtype of more bytes': ({'a': entry(0, 8, dtype='F64')}, bytes(8), None),
  'three offsets': (
    {'a': entry(0, 8) | {'data_offsets': [0, 8, 8]}},
    bytes(8),
    None,
  ),
  'offsets reversed': ({'a': entry(8, 0, (0,))}, bytes(8), None),
  'negative offset': ({'a': entry(-8, 0)}, bytes(8), None),
  'beyond the file': ({'a': entry(0, 8)}, bytes(7), None),
  'far beyond': ({'a': entry(2**62, 2**62 + 8)}, bytes(8), None),
  'overlap': ({'a': entry(0, 8), 'b': entry(4, 12)}, bytes(12), None),
  'the same bytes': ({'a': entry(0, 8), 'b': entry(0, 8)}, bytes(8), None),
  'hole': ({'a': entry(0, 8), 'b': entry(12, 20)}, bytes(20), None),
  'bytes left over': ({'a': entry(0, 8)}, bytes(9), None),
}


@pytest.mark.parametrize('lie', HEADERS)
def test_headers_that_lie(tmp_path, lie):
  path = lying(tmp_path / 'x', *HEADERS[lie])
  with pytest.raises(ModelError, match=str(path)):
    read_header(path)


def test_an_honest_header_passes(tmp_path):
  """Guards the table above: what is changed there is what is refused."""
  both = {'b': entry(8, 16), 'a': entry(0, 8)}
  stored = read_header(lying(tmp_path / 'x', both, bytes(16)))
  assert set(stored) == {'a', 'b'}


def test_long_headers_are_not_read(tmp_path, monkeypatch):
  path = tmp_path / 'x'
  with open(path, 'wb') as file:
    file.write((2**40).to_bytes(8, 'little'))
    file.truncate(2**40 + 16)  # a hole: takes no disk
  with pytest.raises(ModelError, match='header of 1099511627776 bytes, more'):
    read_header(path)


@pytest.mark.parametrize('content', [b'', b'\2\0\0', b'\2\0\0\0\0\0\0\0{'])
def test_short_files(tmp_path, content):
  (tmp_path / 'x').write_bytes(content)
  with pytest.raises(ModelError, match='in a file of'):
    read_header(tmp_path / 'x')


@pytest.mark.parametrize('dtype', ['I8', 'F8_E4M3', 'U8', 'BOOL'])
def test_quantised_numbers_are_refused_where_they_are_read(tmp_path, dtype):
  path = lying(tmp_path / 'x', {'q': entry(0, 6, (6,), dtype)}, bytes(6))
  stored = read_header(path)['q']
  with pytest.raises(ModelError, match=f"'q': holds {dtype}, quantised"):
    read_tensor(stored)


def test_a_file_cut_after_its_header_was_read(tmp_path):
  path = written(tmp_path / 'x', {'a': np.ones((30, 7))})
  stored = read_header(path)['a']
  with open(path, 'r+b') as file:
    file.truncate(stored.offset + 4 * 7)
  with pytest.raises(ModelError, match="ends inside tensor 'a'"):
    read_tensor(stored)


@pytest.mark.parametrize('dtype', tensor_file.FLOATS)
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(tmp_path, dtype, bad):
  numbers = np.ones((5, 4), tensor_file.FLOATS[dtype])
  numbers[3, 2] = bad
  safetensors.numpy.save_file({'w': numbers}, tmp_path / 'x')
  with pytest.raises(ModelError, match="'w': holds NaN or infinity"):
    read_tensor(read_header(tmp_path / 'x')['w'])


@pytest.mark.parametrize('at', [0, 99, 100, 249])
def test_every_piece_is_looked_at(monkeypatch, at):
  monkeypatch.setattr(tensor_file, '_CHUNK', 100)
  numbers = np.ones(250, ml_dtypes.bfloat16)
  check_finite(numbers, 'here')
  numbers[at] = np.nan
  with pytest.raises(ModelError, match='here: holds NaN'):
    check_finite(numbers, 'here')


def test_same_bytes(tmp_path, monkeypatch):
  monkeypatch.setattr(tensor_file, '_CHUNK', 16)
  numbers = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
  other = numbers.copy()
  other[4, 2] += 1
  tensors = {'a': numbers, 'b': numbers, 'c': other, 'd': numbers.reshape(3, 5)}
  stored = read_header(written(tmp_path / 'x', tensors))
  assert same_bytes(stored['a'], stored['b'])
  assert not same_bytes(stored['a'], stored['c'])
  assert not same_bytes(stored['a'], stored['d'])


@pytest.mark.parametrize(
  ('numbers', 'dtype'),
  [
    (np.array([1, np.nan], np.float32), 'F32'),
    (np.array([1, 3.4e38], np.float32), 'BF16'),  # beyond its largest
    (np.array([1, 7e4], np.float32), 'F16'),
  ],
)
def test_nothing_that_is_no_number_is_written(tmp_path, numbers, dtype):
  with pytest.raises(ModelError, match="'a': holds NaN or infinity"):
    written(tmp_path / 'x', {'a': numbers}, dtype)


def test_tensors_of_another_shape_are_not_written(tmp_path):
  with pytest.raises(ValueError, match=r'a=\(3, 2\) must have shape \(2, 3\)'):
    write_tensors(tmp_path / 'x', {'a': (2, 3)}, [np.ones((3, 2))])


def test_files_are_not_overwritten(tmp_path):
  (tmp_path / 'x').write_text('mine')
  with pytest.raises(FileExistsError):
    written(tmp_path / 'x', {'a': np.ones(2)})
  assert (tmp_path / 'x').read_text() == 'mine'
