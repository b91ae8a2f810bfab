"""Who competes, and what is refused by name."""

import pytest

from alignment.protocols.reward.arms import BASELINE, line_up

WHOLE = {'rate': 0.3, 'misassumed': 0.1, 'estimated': True, 'centring': 0.01}


def _names(*given, **changes):
  return [arm.name for arm in line_up(*given, **{**WHOLE, **changes})]


def test_rates_are_true_wrong_and_estimated():
  assert _names(['forward', 'gce'], ['worst'], ['flip']) == [
    BASELINE,
    *('forward@0.3', 'forward@0.2', 'forward@0.4', 'forward@estimate'),
    *('gce', f'{BASELINE}+centring', 'committee worst', 'strength flip'),
    *(f'{BASELINE} (clean)', f'{BASELINE} (unflipped)'),
  ]


def test_what_is_not_asked_for_or_out_of_range_is_left_out():
  assert _names(
    ['backward', BASELINE], [], [], rate=0.45, estimated=False, centring=0
  ) == [
    *(BASELINE, 'backward@0.45', 'backward@0.35'),
    *(f'{BASELINE} (clean)', f'{BASELINE} (unflipped)'),
  ]


def test_the_baseline_is_there_once_even_if_it_is_named():
  names = _names([BASELINE], [], [])
  assert names.count(BASELINE) == 1


@pytest.mark.parametrize(
  'given, message',
  [
    ((['dpo'], [], []), '--loss=dpo: must be one of'),
    (([], ['median'], []), '--ensemble=median'),
    (([], [], ['drop']), '--repair=drop'),
    ((['soft_label'], [], []), '--loss=soft_label.*--repair=soften'),
  ],
)
def test_refusals_name_the_flag(given, message):
  with pytest.raises(ValueError, match=message):
    line_up(*given, **WHOLE)
