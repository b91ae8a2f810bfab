"""May a loss be recommended from what an audit can see of the noise?

Every robust loss is best somewhere. A recommendation is worth having only if a
rule, from what can be observed (an estimate of the flip rate with its error,
and whether rates differ between pairs) to a loss, beats plain training in noise
that the rule was not made from. What this adds to the comparisons of losses at
one kind of noise each: the choice itself is judged, on held-out scenarios, by
its regret against the best loss of each and against always training plainly.

  Embedded worlds, about a minute on two cores:
    python -m experiments.recommend_loss --output_dir=runs/recommend_loss

Contrast, written before the run: the rule is worth following if the 95 %
interval, over held-out scenarios, of the regret of always-plain minus the
regret of the rule lies above 0, in clean accuracy; not worth it if below; else
undecided, and no loss is to be recommended.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from typing import Any, Literal

import numpy as np

from alignment.models.linear import one_blas_thread
from alignment.protocols import ledger
from alignment.protocols.label_budget import worlds
from alignment.protocols.noise_scenarios import ARMS, Scenario, play
from alignment.protocols.recommendation import judge
from alignment.training import rundir
from experiments import common
from experiments.common import field
from experiments.report import recommendation as report

BANDS = (0.1, 0.25)
"""Where the rule divides estimated flip rates."""
ESTIMATION_ERROR = 0.03
"""Standard deviation of an audit's estimate, about that of 300 repeated pairs
at .2."""
NUM_POOL = 2600


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
  task: Literal['linear', 'ballot'] = field(
    'linear', 'Embedded world: spherical features, or BALLOT completions.'
  )
  noise: tuple[
    Literal['symmetric', 'margin_dependent', 'per_annotator'], ...
  ] = field(
    ('symmetric', 'margin_dependent', 'per_annotator'), 'Kinds of noise.'
  )
  flip_rate: tuple[float, ...] = field(
    (0.0, 0.1, 0.2, 0.3, 0.4), 'Mean flip rates.', within='[0, 0.45]'
  )
  preference: tuple[Literal['bt', 'argmax'], ...] = field(
    ('bt', 'argmax'), 'Clean labels: Bradley-Terry draws, or the better one.'
  )
  num_pairs: tuple[int, ...] = field(
    (200, 800), 'Training pairs.', within='[8, 1600]'
  )
  num_features: int = field(
    30, 'Features of the linear world.', within='[1, inf)'
  )
  visible: tuple[float, ...] = field(
    (1.0, 0.5),
    'Shares of the features that the fitted model sees; the truth has all.',
    within='(0, 1]',
  )
  margin_scale: float = field(
    2.0, 'Root mean square of the margins.', within='(0, inf)'
  )
  seeds: int = field(
    4,
    'Scenarios of every kind; every second one learns, every other judges.',
    within='[2, inf)',
  )
  threads: int = field(
    0, 'Scenarios at a time; 0: one per core.', within='[0, inf)', runtime=True
  )


def run(config: Config) -> dict[str, Any]:
  """Plays all scenarios, judges the rule, writes the report."""
  if config.seeds % 2:
    raise ValueError(
      f'--seeds={config.seeds}: must be even, half of them judge'
    )
  opened = common.open_run(config)
  if common.is_finished(opened):
    return opened.result
  with one_blas_thread():  # Fits run side by side: one core each.
    rows = ledger.carry_out(
      {
        name: functools.partial(one, config, *about)
        for name, about in all_of(config)
      },
      opened.directory / 'scenarios.jsonl',
      threads=config.threads or os.cpu_count(),
      on_done=report.progress(),
    )
  scenarios = list(rows.values())
  found = judge(
    [row['observed'] for row in scenarios],
    np.array([row['accuracy'] for row in scenarios]),
    list(ARMS),
  )
  result = report.write(opened.directory, config.task, scenarios, found)
  rundir.finish(opened, result)
  return result


def all_of(config: Config):
  """(name, what a scenario is); seeds of a kind follow one another."""
  for *about, seed in itertools.product(
    config.noise,
    config.flip_rate,
    config.preference,
    config.num_pairs,
    config.visible,
    range(config.seeds),
  ):
    yield ' '.join(map(str, [*about, f'seed {seed}'])), (*about, seed)


def one(
  config: Config,
  noise: str,
  rate: float,
  preference: str,
  size: int,
  visible: float,
  seed: int,
) -> dict[str, Any]:
  """Accuracy of every loss in one scenario, and what an audit would see."""
  # Nothing is shared: intervals take scenarios for independent draws.
  name = f'{noise} {rate} {preference} {size} {visible} {seed}'
  rng = np.random.default_rng(list(name.encode()))
  sizes = {'num_pairs': NUM_POOL, 'num_validation': 1}
  if config.task == 'linear':
    sizes['num_features'] = config.num_features
  pairs = worlds.TASKS[config.task](
    rng, margin_scale=config.margin_scale, **sizes
  ).pool
  estimate = float(np.clip(rng.normal(rate, ESTIMATION_ERROR), 0, 0.45))
  scenario = Scenario(
    noise=noise,
    flip_rate=rate,
    preference=preference,
    size=size,
    visible=visible,
  )
  accuracy = play(
    rng,
    scenario,
    pairs.features,
    pairs.margin,
    np.arange(NUM_POOL),
    list(ARMS),
    assumed=estimate,
  )
  differs = 'rates differ' if noise != 'symmetric' else 'one rate'
  band = int(np.searchsorted(BANDS, estimate))
  return {
    **dataclasses.asdict(scenario),
    'seed': seed,
    'estimate': estimate,
    'observed': f'{report.band_name(BANDS, band)}, {differs}',
    'accuracy': accuracy.tolist(),
  }


if __name__ == '__main__':
  common.main(Config, run)
