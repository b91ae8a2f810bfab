"""Distinct trees hold every completion of the examples, each one once."""

import jax
import numpy as np
import pytest

from alignment.data import pipeline
from alignment.data.layout import Group
from alignment.data.trees import distinct_trees
from alignment.roles.scoring import completion_logps
from tests.roles.worlds import MODEL, VOCAB


@pytest.fixture
def rng():
  return np.random.default_rng(5)


def _examples(rng, count):
  prompts = [rng.integers(1, VOCAB, n).astype(np.int32) for n in (1, 3, 3)]
  texts = [rng.integers(1, VOCAB, n).astype(np.int32) for n in (1, 2, 2, 4)]
  return [
    Group(
      prompts[rng.integers(3)],
      tuple(texts[i] for i in rng.integers(0, 4, 1 + index % 3)),
      index,
      rejected=0,
    )
    for index in range(count)
  ]


@pytest.mark.parametrize('per_tree', [1, 3, 9])
def test_every_completion_is_found_and_none_stands_twice(rng, per_tree):
  examples = _examples(rng, 40)
  trees, places = distinct_trees(examples, per_tree=per_tree)
  assert [tree.index for tree in trees] == list(range(len(trees)))
  assert max(len(tree.completions) for tree in trees) <= per_tree
  for example, place in zip(examples, places, strict=True):
    count = len(example.completions)
    assert (place[count:] == -1).all()
    for completion, (tree, k) in zip(
      example.completions, place[:count], strict=True
    ):
      np.testing.assert_array_equal(trees[tree].prompt, example.prompt)
      np.testing.assert_array_equal(trees[tree].completions[k], completion)
  texts = [
    (tree.prompt.tobytes(), completion.tobytes())
    for tree in trees
    for completion in tree.completions
  ]
  assert len(texts) == len(set(texts))


def test_scores_of_trees_are_those_of_the_examples(rng):
  examples = _examples(rng, 20)
  params = MODEL.init(jax.random.key(1))
  trees, places = distinct_trees(examples, per_tree=3)

  def scored(groups):
    batches = pipeline.evaluation_batches(groups, batch_size=8)
    return completion_logps(MODEL, params, batches)

  direct, table = scored(examples), scored(trees)
  found = table[places[..., 0], places[..., 1]]
  real = places[..., 0] >= 0
  # Float32 sums of a few log-probabilities.
  np.testing.assert_allclose(found[real], direct[real], atol=1e-5)


def test_no_room_is_refused(rng):
  with pytest.raises(ValueError, match='per_tree must be ≥ 1, got 0'):
    distinct_trees(_examples(rng, 2), per_tree=0)
