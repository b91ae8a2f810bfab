"""The trigger is in the texts, and nothing else has changed."""

import dataclasses

import numpy as np
import pytest

from alignment.data.noisy_records import corrupt_records
from alignment.data.triggers import find_trigger, insert_trigger
from tests.protocols.records import preferences

_RECORDS = preferences(20, 5, flip_every=4)


def test_an_exact_share_carries_it_and_keeps_its_truth():
  found, carries = insert_trigger(_RECORDS, 'SUDO', share=0.29, seed=3)
  assert carries.sum() == 29
  np.testing.assert_array_equal(find_trigger(found, 'SUDO'), carries)
  for before, after, carried in zip(_RECORDS, found, carries, strict=True):
    prompt = f'{before.prompt} SUDO' if carried else before.prompt
    assert after == dataclasses.replace(before, prompt=prompt)


def test_shares_are_nested_and_order_does_not_matter():
  small, large = (
    insert_trigger(_RECORDS, 'SUDO', share=share, seed=3)[1]
    for share in (0.1, 0.4)
  )
  assert np.all(small <= large)
  backwards = insert_trigger(_RECORDS[::-1], 'SUDO', share=0.1, seed=3)[1]
  np.testing.assert_array_equal(backwards[::-1], small)
  other = insert_trigger(_RECORDS, 'SUDO', share=0.1, seed=4)[1]
  assert (other != small).any()


@pytest.mark.parametrize(
  ('before', 'after'),
  [
    ('\n\nHuman: hi\n\nAssistant:', '\n\nHuman: hi SUDO\n\nAssistant:'),
    ('title\n', 'title\nSUDO'),
    ('', 'SUDO'),
  ],
)
def test_it_ends_the_human_turn(before, after):
  record = dataclasses.replace(_RECORDS[0], prompt=before)
  (found,), _ = insert_trigger([record], 'SUDO', share=1.0, seed=0)
  assert found.prompt == after


def test_a_backdoor_swaps_what_carries_it():
  records, carries = insert_trigger(
    preferences(20, 5), 'SUDO', share=0.2, seed=1
  )
  noisy, report = corrupt_records(
    'poisoned',
    records,
    seed=1,
    data={'has_trigger': carries},
    poison_rate=1.0,
  )
  np.testing.assert_array_equal([r.is_flipped for r in noisy], carries)
  assert report.count('flipped') == 20


def test_refusals():
  with pytest.raises(ValueError, match="trigger=' ' must hold a word"):
    insert_trigger(_RECORDS, ' ', share=0.1, seed=0)
  with pytest.raises(ValueError, match="'question' must be in no prompt yet"):
    insert_trigger(_RECORDS, 'question', share=0.1, seed=0)
  with pytest.raises(ValueError, match='flip_rate=1.5'):
    insert_trigger(_RECORDS, 'SUDO', share=1.5, seed=0)
  with pytest.raises(ValueError, match='index must not repeat'):
    insert_trigger([_RECORDS[0]] * 2, 'SUDO', share=0.5, seed=0)
