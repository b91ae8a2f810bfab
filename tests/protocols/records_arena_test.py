"""Arenas of real preferences: shapes, starts, rules, refusals."""

import numpy as np
import pytest

from alignment.data.records import DataError
from alignment.data.tokenizers import HashedTokenizer
from alignment.models.build import build
from alignment.models.config import TransformerConfig
from alignment.models.hashed import HashedConfig
from alignment.protocols.records_arena import (
  Policy,
  RecordSizes,
  records_arenas,
)
from alignment.protocols.records_draw import Reading
from alignment.protocols.records_policies import byte_policy
from tests.protocols.records import preferences, voted

BAG = Policy(build(HashedConfig(4096)), Reading(HashedTokenizer(4096)))
SIZES = RecordSizes(steps=3, batch_size=8)


def arena(records, seed=0, sizes=SIZES):
  (found,) = records_arenas(seed, [BAG], records, sizes)
  return found


def test_no_more_pairs_than_the_steps_can_see():
  found = arena(preferences(30, 4))
  assert len(found.train.pairs) == 24  # of 80
  assert len(found.order) == 3
  seen = np.concatenate([np.ravel(b.examples.index) for b in found.order])
  assert sorted(seen) == list(range(24))


def test_every_batch_of_every_seed_has_one_shape():
  shapes = {
    (b.tokens.shape, b.target.shape)
    for seed in range(3)
    for b in arena(preferences(30, 4), seed).order
  }
  assert len(shapes) == 1


def test_the_bag_starts_at_a_coin():
  found = arena(voted(12, 8))
  assert found.floor == {'agreement': 0.5}
  np.testing.assert_array_equal(found.test.reference, 0)


def test_the_yardstick_counts_votes():
  found = arena(voted(12, 8))
  pairs = found.test.pairs
  right = np.where(pairs.vote_share >= 0.5, 1.0, -1.0)
  measured = found.yardstick(found.start, right)
  ceiling = np.maximum(pairs.vote_share, 1 - pairs.vote_share)
  np.testing.assert_allclose(measured.correct, ceiling)
  wrong = found.yardstick(found.start, -right).summary['agreement']
  assert measured.summary['agreement'] + wrong == pytest.approx(1)


def test_the_rule_by_length_turns_with_the_training_labels():
  # Longer texts win: make every good text the long one.
  def longer(sign):
    records = []
    for r in preferences(30, 4):
      pad = ' word' * 9
      chosen, rejected = r.chosen, r.rejected
      if sign > 0:
        chosen += pad
      else:
        rejected += pad
      records.append(
        type(r)(
          prompt=r.prompt,
          chosen=chosen,
          rejected=rejected,
          index=r.index,
          group=r.group,
        )
      )
    return arena(records).rules

  assert longer(+1)['length only (longer text)'].mean() == 1
  assert longer(-1)['length only (shorter text)'].mean() == 1
  side = longer(+1)['majority side']
  assert set(side) <= {0.0, 0.5, 1.0}


def test_a_transformer_starts_from_chosen_texts_beside_a_bag():
  config = TransformerConfig(
    vocab_size=259,
    width=8,
    depth=1,
    num_heads=1,
    num_kv_heads=1,
    head_dim=8,
    mlp_width=8,
  )
  policy = byte_policy(
    config,
    max_prompt_length=8,
    max_completion_length=16,
    sft_steps=2,
    sft_learning_rate=1e-3,
  )
  text, bag = records_arenas(0, [policy, BAG], preferences(12, 4), SIZES)
  assert np.isfinite(text.test.reference).all()
  np.testing.assert_array_equal(text.test.pairs.cluster, bag.test.pairs.cluster)
  np.testing.assert_array_equal(
    text.train.pairs.first_is_better, bag.train.pairs.first_is_better
  )
  cut = sum(r.count('truncated, chosen (start kept)') for r in text.reports)
  assert cut > 0


def test_fewer_pairs_than_a_batch():
  with pytest.raises(DataError, match=r'fewer than --batch_size=8'):
    arena(preferences(6, 1))
