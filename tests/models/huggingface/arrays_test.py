"""A Llama kept as arrays: what it computes, and what is refused."""

import io
import json
import zipfile

import numpy as np
import pytest

from alignment.models.huggingface.arrays import is_array_folder, read_arrays
from alignment.models.huggingface.family import ModelError
from alignment.models.logits import next_token_logits
from tests.models.huggingface import array_folders
from tests.models.huggingface.array_folders import SIZES

ARRAYS = array_folders.random_arrays(3)
TOKENS = np.random.default_rng(5).integers(0, SIZES['vocab'], 11)


def test_logits_are_those_of_the_definition(tmp_path):
  folder = array_folders.write(tmp_path, ARRAYS)
  assert is_array_folder(folder)
  read = read_arrays(folder)
  found = next_token_logits(read.config)(read.params, TOKENS[None])
  wanted = array_folders.logits(ARRAYS, SIZES, TOKENS)
  # Of size 10, in float32 through two layers.
  np.testing.assert_allclose(found[0], wanted, atol=1e-4)
  assert read.config.context == 16
  assert read.pieces == tuple(array_folders.pieces(300))
  assert (read.bos_id, read.eos_id, read.unk_id) == (1, 2, 0)


def test_it_is_another_model_where_halves_are_taken_for_pairs(tmp_path):
  folder = array_folders.write(tmp_path, ARRAYS)
  read = read_arrays(folder)
  unordered = [0, 3, 1, 4, 2, 5]  # undoes the order of the rows
  for layer in ('layer_0', 'layer_1'):
    attention = read.params[layer]['attention']
    qkv = attention['qkv'].copy()
    qkv[:, :, :-1] = qkv[:, :, :-1, :][..., unordered]
    attention['qkv'] = qkv
  found = next_token_logits(read.config)(read.params, TOKENS[None])
  wanted = array_folders.logits(ARRAYS, SIZES, TOKENS)
  assert np.abs(np.asarray(found[0]) - wanted).max() > 0.1


@pytest.mark.parametrize(
  'field, value, complaint',
  [
    ('heads', 5, 'heads=5 must be a divisor of 12'),
    ('kv_heads', 3, 'heads=4 must be a divisor of 12 and a multiple'),
    ('vocab', 301, 'vocab=301 must be 300, the pieces'),
    ('dim', 10**12, 'dim=1000000000000 must be an integer in'),
    ('layers', True, 'layers=True must be'),
    ('hidden', 21, 'holds float32[2, 20, 24], the sizes ask for float32[2, 21'),
    ('tied', False, 'tied=False must be true'),
    ('rope_pairs', 'halves', 'rope_pairs=halves must be interleaved'),
    ('activation', 'gelu', 'activation=gelu must be silu-gated'),
    ('norm_eps', 0, 'norm_eps=0 must be a number > 0'),
    ('eos', 300, 'eos=300 must be an id'),
    ('pieces', ['a', 'a'], 'must be a list of distinct strings'),
  ],
)
def test_sizes_that_cannot_be(tmp_path, field, value, complaint):
  array_folders.write(tmp_path, ARRAYS, {**SIZES, field: value, 'vocab': 300})
  said = json.loads((tmp_path / 'config_and_vocab.json').read_text())
  said[field] = value
  (tmp_path / 'config_and_vocab.json').write_text(json.dumps(said))
  with pytest.raises(ModelError) as refused:
    read_arrays(tmp_path)
  assert complaint in str(refused.value)


def _replaced(name, content):
  """The file of arrays with one entry's bytes replaced."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as file:
    for each, array in ARRAYS.items():
      entry = io.BytesIO()
      np.save(entry, array)
      data = content(entry.getvalue()) if each == name else entry.getvalue()
      if data is not None:
        file.writestr(f'{each}.npy', data)
  return buffer.getvalue()


def _pickled(_):
  entry = io.BytesIO()
  np.save(entry, np.array([print], object), allow_pickle=True)
  return entry.getvalue()


def _not_finite(data):
  return data[:-4] + np.float32(np.nan).tobytes()


@pytest.mark.parametrize(
  'content, complaint',
  [
    (lambda data: None, "arrays missing or unknown: ['w1']"),
    (lambda data: data[:-4], 'shorter or longer than it says'),
    (lambda data: data + b'0000', 'shorter or longer than it says'),
    (
      lambda data: data.replace(b'(2, 20, 24)', b'(2, 2**40,)'),
      'no readable file of arrays',
    ),
    (
      lambda data: data.replace(b'(2, 20, 24)', b'(2, 20, 99)'),
      'holds float32[2, 20, 99], the sizes ask for',
    ),
    (_pickled, 'holds object[1]'),
    (_not_finite, 'w1: holds NaN or infinity'),
  ],
)
def test_arrays_that_are_not_those_of_the_sizes(tmp_path, content, complaint):
  array_folders.write(tmp_path, ARRAYS)
  (tmp_path / 'params_fp32.npz').write_bytes(_replaced('w1', content))
  with pytest.raises(ModelError) as refused:
    read_arrays(tmp_path)
  assert complaint in str(refused.value)


def test_a_file_that_is_not_there(tmp_path):
  assert not is_array_folder(tmp_path)
  with pytest.raises(ModelError, match=r'config_and_vocab.json: cannot be'):
    read_arrays(tmp_path)


@pytest.mark.shared
def test_a_pretrained_one_finds_stories_likely(shared_dir):
  """SOURCE.md: .21 nats per character on the text it was trained on."""
  read = read_arrays(shared_dir / 'data' / 'models' / 'babyllama_tok361')
  story = (
    'Once upon a time, there was a little girl named Lily. She loved to play '
    'outside in the park.'
  )
  ids = {piece: number for number, piece in enumerate(read.pieces)}
  tokens = [ids[c] for c in '▁' + story.replace(' ', '▁')]
  given = np.array([[read.bos_id, *tokens[:-1]]])
  logits = np.asarray(next_token_logits(read.config)(read.params, given))[0]
  top = logits.max(axis=1, keepdims=True)
  logps = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
  nats = -logps[np.arange(len(tokens)), tokens].mean()
  assert nats < 0.3, nats  # a model of mere letter counts: 2.9
