"""Texts that contenders share, and what work they are credited with."""

import dataclasses

import jax
import numpy as np
import pytest

from alignment.models.build import build
from experiments.benchmarks import counting, ours, workload
from experiments.benchmarks.workload import SIZES, Size, Texts, Work

SIZE = Size(12, 3, 4, 2, 6, 20, 50, tied_head=False)
WORK = Work('ours', 'dpo', 's1', '')


def test_texts_keep_their_lengths():
  texts = workload.draw(
    num_batches=50, batch_size=20, sequence_length=60, vocab_size=9
  )
  prompt, chosen, rejected = np.moveaxis(texts.lengths, -1, 0)
  assert prompt.min() >= 2 and prompt.max() <= 30
  assert min(chosen.min(), rejected.min()) >= 1
  assert (prompt + np.maximum(chosen, rejected)).max() <= 60
  # Medians of 1000 log-normal draws of sigma ½, to five standard errors.
  assert np.median(prompt) == pytest.approx(0.27 * 60, abs=1.8)
  assert np.median(chosen) == pytest.approx(0.3 * 60, abs=1.8)
  assert np.std(np.log(prompt)) > 0.3
  assert set(np.unique(texts.tokens)) == set(range(1, 9))
  assert len(texts.tokens) == texts.lengths.sum()


def test_texts_come_back_as_they_were_written(tmp_path):
  texts = workload.draw(
    num_batches=2, batch_size=3, sequence_length=20, vocab_size=99, seed=5
  )
  workload.save(tmp_path / 'texts.npz', texts)
  loaded = workload.load(str(tmp_path / 'texts.npz'))
  for ours_, theirs in zip(texts, loaded, strict=True):
    np.testing.assert_array_equal(ours_, theirs)
  pieces = [
    piece for i in range(2) for pair in texts.batch(i) for piece in pair
  ]
  assert [len(piece) for piece in pieces] == texts.lengths.ravel().tolist()
  np.testing.assert_array_equal(np.concatenate(pieces), texts.tokens)


def test_work_crosses_processes_unchanged():
  work = dataclasses.replace(WORK, lora='merged', threads=3, texts='a"\n')
  assert Work.from_json(work.to_json()) == work


@pytest.mark.parametrize('name', SIZES)
def test_multiplied_weights_are_those_of_the_model(name):
  """Of the shapes themselves: matrices of layers and the head, no tables."""
  model = build(ours.config_of(dataclasses.replace(WORK, size=name)))
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
  table = shapes['embedding' if SIZES[name].tied_head else 'head']
  matrices = [
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    if leaf.ndim > 1 and path[0].key.startswith('layer')
  ]
  counted = sum(leaf.size for leaf in [table, *matrices])
  assert counting.matmul_params(SIZES[name]) == counted


def test_tokens_of_a_batch():
  lengths = np.array([[[5, 2, 3]], [[7, 1, 4]]])
  texts = Texts(lengths, np.zeros(22), np.zeros((2, 1, 2)))
  assert counting.tokens(texts, 'dpo') == (15 + 19) / 2
  assert counting.tokens(texts, 'forward') == (15 + 19) / 2
  assert counting.tokens(texts, 'sft') == (7 + 8) / 2
  assert counting.tokens(texts, 'decode', 11) == 11


@pytest.mark.parametrize(
  ('changes', 'products'),
  [
    ({}, 8),
    ({'reference': 'precomputed'}, 6),
    ({'lora': 'low_rank'}, 6),
    ({'lora': 'merged', 'reference': 'precomputed'}, 4),
    ({'case': 'sft'}, 6),
    ({'case': 'sft', 'lora': 'low_rank'}, 4),
    ({'case': 'forward'}, 2),
    ({'case': 'decode'}, 2),
  ],
)
def test_flops_of_a_token(changes, products):
  work = dataclasses.replace(WORK, **changes)
  n = counting.matmul_params(SIZE)
  assert counting.flops_per_token(SIZE, work) == products * n


def test_bytes_of_decoding_are_those_of_every_single_token():
  texts = Texts(np.array([[[5, 1, 1], [9, 1, 1]]]), None, None)
  work = dataclasses.replace(
    WORK, case='decode', dtype='bfloat16', new_tokens=40
  )
  expected = 0
  for new in range(40):
    expected += 2 * counting.matmul_params(SIZE)
    for prompt in (5, 9):
      for _ in range(SIZE.depth):
        expected += (prompt + new) * 2 * SIZE.num_kv_heads * SIZE.head_dim * 4
  assert counting.decode_bytes(SIZE, texts, work) == expected
