"""What a named loss refuses, said before anything is trained."""

from __future__ import annotations

import pytest

from alignment.roles.binding import check_examples, check_hyperparameters
from tests.roles.worlds import batch_of, pairs, unit_pairs


def test_flags_that_are_used_pass():
  check_hyperparameters('rdpo', 'mean', {'beta': 0.1, 'label_smoothing': 0.2})
  check_hyperparameters('simpo', 'dr_dpo', {'gamma': 1.0, 'beta_prime': 0.3})
  check_examples('rdpo', batch_of(pairs(5, label_smoothing=0.3)).examples)
  check_examples('dpo', batch_of(pairs(5)).examples)
  check_examples('aot', batch_of(unit_pairs(5)).examples)


@pytest.mark.parametrize(
  'method, aggregate, values, flag',
  [
    ('dpo', 'mean', {'label_smoothing': 0.1}, 'label_smoothing'),
    ('rdpo', 'mean', {'beta': 0.1, 'gamma': 0.5}, 'gamma'),
    ('dpo', 'mean', {'beta_prime': 1.0}, 'beta_prime'),
    ('dpo', 'none', {}, 'aggregate'),
    ('nope', 'mean', {}, 'loss'),
  ],
)
def test_flags_that_are_not_used_are_named(method, aggregate, values, flag):
  with pytest.raises(ValueError, match=f'--{flag}='):
    check_hyperparameters(method, aggregate, values)


@pytest.mark.parametrize(
  'method, fields, message',
  [
    ('dpo', {'label_smoothing': 0.1}, 'label_smoothing = 0.1: --loss=dpo'),
    ('aot', {'weight': 2.0}, 'weight = 2: --loss=aot'),
    ('aot_unpaired', {'coefficient': 0.5}, 'coefficient = 0.5'),
  ],
)
def test_labels_that_cannot_be_honoured_are_named(method, fields, message):
  groups = unit_pairs(5)
  groups[3] = type(groups[3])(**{**vars(groups[3]), **fields})
  with pytest.raises(ValueError, match=message):
    check_examples(method, batch_of(groups).examples)
