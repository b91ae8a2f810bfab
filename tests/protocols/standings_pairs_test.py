"""Standings on real text: units are clusters of test pairs over all seeds."""

import numpy as np
import pytest

from alignment.protocols.standings import (
  Units,
  best_of_standings,
  select,
  standings,
)

SEEDS, PAIRS = 4, 30


def cells(lifts, seeds=SEEDS, noise=0.3):
  """Contestants whose agreement is `lift` above .5, with shared pair noise."""
  rng = np.random.default_rng(11)
  found = []
  for seed in range(seeds):
    common = rng.normal(0, noise, PAIRS)
    for (name, role), lift in lifts.items():
      correct = 0.5 + lift + common + rng.normal(0, 0.01, PAIRS)
      measured = {
        'stop': {'learning_rate': 0.1, 'step': 5, 'fitted': None},
        'summary': {'agreement': float(correct.mean())},
        'correct': correct.tolist(),
      }
      found.append(
        {
          'seed': seed,
          'flip_rate': 0.2,
          'role': role,
          'name': name,
          'assumed': None,
          'selected': measured,
        }
      )
  return found


def units(seeds=SEEDS):
  return Units(
    {s: [f'{s}/{i // 3}' for i in range(PAIRS)] for s in range(seeds)}
  )


def table(rows, over):
  lines = standings(
    rows,
    flip_rate=0.2,
    setting='selected',
    metrics=('agreement',),
    units=over,
    baseline='dpo',
    clean=select(rows, role='clean'),
  )
  return {line.name: line for line in lines}


LIFTS = {
  ('dpo', 'contestant'): 0.0,
  ('rdpo', 'contestant'): 0.05,
  ('dpo (clean)', 'clean'): 0.1,
}


def test_recovery_is_a_point_where_the_gap_excludes_0():
  line = table(cells(LIFTS), units())['rdpo']
  found = line.recovery['agreement']
  assert found.estimate.value == pytest.approx(0.5, abs=0.05)
  assert found.estimate.low is None and found.gap.low > 0
  assert found.gap.count == SEEDS * PAIRS // 3


def test_recovery_is_undefined_where_the_gap_covers_0():
  flat = {**LIFTS, ('dpo (clean)', 'clean'): 0.0}
  line = table(cells(flat), units())['rdpo']
  assert line.recovery['agreement'].estimate is None


def test_one_seed_gives_points_only_and_tells_nobody_apart():
  rows = cells(LIFTS, seeds=1)
  line = table(rows, units(1))['rdpo']
  assert line.differences['agreement'].low is None
  assert line.means['agreement'].low is None
  best = best_of_standings(
    rows,
    flip_rate=0.2,
    setting='selected',
    metric='agreement',
    units=units(1),
    among=('dpo', 'rdpo'),
  )
  assert best.name == 'rdpo' and best.indistinguishable == ('dpo',)


def test_pairs_are_compared_with_themselves():
  line = table(cells(LIFTS), units())['rdpo']
  gap, mean = line.differences['agreement'], line.means['agreement']
  # What the pairs share cancels in the difference and not in the mean.
  assert gap.high - gap.low < (mean.high - mean.low) / 10
  assert gap.low < 0.05 < gap.high
