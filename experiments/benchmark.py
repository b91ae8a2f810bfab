"""How fast is it, measured beside something else in the same run?

Every case is a few contenders that take turns within each round, so that what
disturbs the machine disturbs all of them; a ratio is a contender's time over
the reference's in the same round, shown as least-median-greatest over rounds.
Wall times of a machine on which others are at work give no ratio.

Cases that run a language model have every contender work in a process of its
own, on the same batches, step by step in turn. They tell tokens/s, model FLOP/s
and their share of the best matrix product of the run (of decoding: the share of
the bandwidth bound), peak memory, compile time and start-up.

  All cases on their full sizes, about ten minutes on two cores:
    python -m experiments.benchmark --output_dir=runs/benchmark
  DPO against TRL (pip install -e '.[peers]'), about five minutes:
    python -m experiments.benchmark --case=dpo --peer=trl --threads=2
  Against crowd-kit, about two minutes:
    python -m experiments.benchmark --case=dawid_skene --peer=crowdkit
  A shared machine, by CPU time:
    python -m experiments.benchmark --case=dawid_skene --clock=cpu
  An accelerator, which contenders must fit on together (a TPU takes one):
    python -m experiments.benchmark --case=dpo --model_size=0.5b \
      --sequence_length=2048 --matmul_dtype=bfloat16 --reference=in_step --remat

Asked before the run: Dawid-Skene on a million votes, and 200 bootstraps of it,
at least ten times as fast as crowd-kit at the same number of iterations; every
noise option at most 2 % on top of a training step; an audit of 13,080 pairs
with five votes each in less than a minute on two cores. DPO on 8 pairs of at
most 128 tokens, model s1, two threads, metrics on: at least 1.8 times as fast
as TRL and 2.2 times as fast as Tunix in float32, 2.5 times as fast as TRL in
bfloat16, twice with the reference precomputed; at 512 tokens, and of the model
large, 1.5 times; in at most .85 of TRL's memory; from process start to first
step in at most 5 s, programs compiled before.

Obtained for Dawid-Skene, by CPU time on two cores that others used too, against
crowd-kit 1.4.2 (least - median - greatest of three rounds): one fit 12.6 - 15.0
- 15.8 times as fast, 200 bootstraps 44 - 47 - 48 times as fast as 200 of its
fits would be.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import numpy as np
from rich import progress

from alignment.data.records import Report
from alignment.noise.crowd.dawid_skene import dawid_skene, dawid_skene_weighted
from alignment.noise.crowd.table import VoteTable
from alignment.protocols import noise_cost
from alignment.protocols.audit.example import voted_pairs
from alignment.protocols.audit.findings import examine
from alignment.protocols.audit.from_records import from_records
from alignment.training import rundir, storage
from experiments import common
from experiments.benchmarks import contenders, models
from experiments.common import field
from experiments.report import tables, timing
from experiments.report.timing import Case, Contender, Figure


@dataclasses.dataclass(frozen=True)
class Config(contenders.ModelConfig):
  case: tuple[str, ...] = field((), 'Cases to run; if not given: all.')
  peer: tuple[Literal['crowdkit', 'trl', 'tunix', 'transformers'], ...] = field(
    (), 'Other libraries to measure beside, where a case knows them.'
  )
  size: float = field(
    1.0, 'Share of the full size of cases without a model.', within='(0, 1]'
  )
  rounds: int = field(
    3, 'Timed rounds of whole tasks and processes.', within='[1, inf)'
  )
  clock: Literal['wall', 'cpu'] = field(
    'wall',
    'What ratios and bounds are of: wall time, or CPU time of all threads, '
    'which others on the machine disturb less.',
  )
  allow_busy: bool = field(
    False, 'Take ratios of wall times on a busy machine too, with a remark.'
  )


def run(config: Config) -> dict[str, Any]:
  """Measures every case, writes the report, returns its rows.

  Returns:
    Case -> `figures` (rows of `timing.figures`) and `contenders` (a row for
    each); what `result.json` holds too.
  """
  # Models first: cases in this process would hold on to an accelerator.
  names = config.case or (*models.CASES, *CASES)
  check(names, config)
  opened = common.open_run(config)
  if common.is_finished(opened):
    return opened.result
  parts = ['# Benchmark']
  result = {}
  with progress.Progress(transient=True) as bar:
    total = sum(_rounds(name, config) + 1 for name in names)
    rounds = bar.add_task('rounds', total=total)
    for name in names:
      measure = models.run if name in models.CASES else _in_process
      found = measure(name, config, lambda: bar.advance(rounds))
      result[name] = {'figures': found.figures, 'contenders': found.contenders}
      parts += [f'## {name}', *found.parts]
      parts.append(
        f'Least - median - greatest of {_rounds(name, config)} rounds, in '
        f'which all took turns; figures by {config.clock} time.'
      )
  print('\n\n'.join(parts))
  tables.write(opened.directory / 'report.md', parts)
  storage.write_text(
    opened.directory / 'result.json', json.dumps(result, indent=1) + '\n'
  )
  rows = [row for found in result.values() for row in found['figures']]
  if any(row['value'] is None for row in rows):
    # Not finished: the same command measures again.
    print('No figures from a busy machine: --clock=cpu, or --allow_busy.')
  else:
    rundir.finish(opened, result)
  return result


def check(names: tuple[str, ...], config: Config) -> None:
  """Refuses unknown cases, and peers or flags that none of them uses.

  Raises:
    ValueError: naming the flag.
  """
  for name in names:
    if name not in CASES and name not in models.CASES:
      known = ', '.join((*CASES, *models.CASES))
      raise ValueError(f'--case={name}: none of {known}')
  pythons = models.pythons(config)
  for peer in config.peer:
    if not any(peer in _peers(name) for name in names):
      raise ValueError(f'--peer={peer}: not used by {", ".join(names)}')
    if peer not in pythons and importlib.util.find_spec(peer) is None:
      raise ValueError(
        f"--peer={peer}: not installed; pip install -e '.[peers]', or give "
        f'--peer_python={peer}=path'
      )
  for flag in dataclasses.fields(contenders.ModelConfig):
    users = contenders.USES.get(flag.name, tuple(models.CASES))
    is_shared = flag.name in {f.name for f in dataclasses.fields(common.Config)}
    is_given = getattr(config, flag.name) != flag.default
    if is_given and not is_shared and not set(users) & set(names):
      raise ValueError(
        f'--{flag.name}: used by {", ".join(users)}, not by {", ".join(names)}'
      )


def _in_process(
  name: str, config: Config, on_round: Callable[[], None]
) -> models.Outcome:
  """Measures a case of this file; peers are keywords of its function."""
  wanted = {peer: peer in config.peer for peer in _peers(name)}
  case = CASES[name](config.size, **wanted)
  measured = timing.measure(case, config.rounds, on_round)
  found = timing.figures(
    case, measured, config.clock, allow_busy=config.allow_busy
  )
  shown = timing.show(case, measured, found)
  return models.Outcome(
    found,
    timing.contender_rows(case, measured),
    [machine(wanted), *case.facts, *shown],
  )


def _rounds(name: str, config: Config) -> int:
  is_model = name in models.CASES
  return models.rounds(name, config) if is_model else config.rounds


def machine(peers: Mapping[str, bool]) -> str:
  """Device, cores and versions, in one sentence."""
  distributions = {'crowdkit': 'crowd-kit'}
  measured = [distributions[peer] for peer, wanted in peers.items() if wanted]
  packages = ['jax', 'numpy', *measured]
  versions = [f'{p} {importlib.metadata.version(p)}' for p in packages]
  return (
    f'{jax.devices()[0].device_kind}, {os.cpu_count()} cores, Python '
    f'{platform.python_version()}, {", ".join(versions)}.'
  )


def dawid_skene_case(size: float, *, crowdkit: bool) -> Case:
  """One fit and 200 bootstraps of it, 20 iterations each."""
  num_votes, resamples, iterations = int(1e6 * size), 200, 20
  votes = _votes(num_votes)
  weights = np.random.default_rng(1).multinomial(
    votes.num_tasks, np.full(votes.num_tasks, 1 / votes.num_tasks), resamples
  )
  # So many iterations on either side, whatever they bring.
  settings = {
    'smoothing': 0.0,
    'tolerance': 1e-300,
    'max_iterations': iterations,
  }
  contenders = {
    'one fit': Contender(
      lambda: dawid_skene(votes, **settings), num_votes, 'votes'
    ),
    f'{resamples} bootstraps': Contender(
      lambda: dawid_skene_weighted(votes, weights, **settings),
      num_votes * resamples,
      'votes',
    ),
  }
  facts = [
    f'{len(votes):,} votes on {votes.num_tasks:,} tasks by '
    f'{votes.num_workers} workers of unequal diligence, two classes; '
    f'{iterations} iterations of EM each.'
  ]
  figures = [Figure('200 bootstraps', 'one fit')]
  if crowdkit:
    contenders['crowd-kit, one fit'] = Contender(
      _crowdkit_fit(votes, iterations), num_votes, 'votes'
    )
    figures += [
      Figure('crowd-kit, one fit', 'one fit', least=10),
      Figure('crowd-kit, one fit', '200 bootstraps', times=200, least=10),
    ]
    facts.append(
      'crowd-kit has no bootstraps: theirs count as 200 times the one fit.'
    )
  return Case(contenders, figures, facts)


def _crowdkit_fit(votes: VoteTable, iterations: int) -> Callable[[], Any]:
  """Their fit; a tolerance below every rise makes them iterate as often."""
  pandas = importlib.import_module('pandas')
  aggregation = importlib.import_module('crowdkit.aggregation')
  columns = {name: getattr(votes, name) for name in ('task', 'worker', 'label')}
  frame = pandas.DataFrame(columns)
  return lambda: aggregation.DawidSkene(iterations, tol=-np.inf).fit(frame)


def _votes(num_votes: int) -> VoteTable:
  """Five votes per task by workers of accuracy .55 to .95."""
  rng = np.random.default_rng(0)
  num_workers, per_task = 1000, 5
  num_tasks = num_votes // per_task
  diligence = rng.gamma(1.0, 1.0, num_workers)
  worker = rng.choice(
    num_workers, num_tasks * per_task, p=diligence / diligence.sum()
  )
  task = np.repeat(np.arange(num_tasks), per_task)
  truth = rng.random(num_tasks) < 0.4
  is_right = (
    rng.random(len(task)) < rng.uniform(0.55, 0.95, num_workers)[worker]
  )
  label = (truth[task] == is_right).astype(np.int32)
  return VoteTable(task, worker, label, num_tasks, num_workers, 2)


def noise_options_case(size: float) -> Case:
  """What rates, probabilities, weights and robust links cost in a step."""
  batch_size, steps = max(2, int(64 * size)), 4
  variants = noise_cost.step_variants(
    width=64, depth=2, batch_size=batch_size, length=24, steps=steps
  )
  return Case(
    {
      name: Contender(call, batch_size * steps, 'pairs')
      for name, call in variants.items()
    },
    [
      Figure(noise_cost.SAME, noise_cost.PLAIN),
      *(
        Figure(name, noise_cost.PLAIN, most=1.02)
        for name in variants
        if name not in (noise_cost.PLAIN, noise_cost.SAME)
      ),
    ],
    [
      f'{steps} updates of a transformer of width 64 and two layers on '
      f'{batch_size} pairs each, prompts of 24 tokens, completions of 12 to '
      '24; options also pay for relabelling the batches on the host.'
    ],
  )


def audit_case(size: float) -> Case:
  """An audit of crowd votes, from labels to plan, without files."""
  num_pairs = max(60, int(13_080 * size))
  pairs = voted_pairs(num_pairs, seed=0)
  subject = from_records(pairs, Report('drawn votes'), seed=0)
  return Case(
    {
      'audit': Contender(
        lambda: examine(subject, seed=0, scenarios=32).rates.is_identified,
        num_pairs,
        'pairs',
      )
    },
    [Figure('audit', most=60)],
    [
      f'{num_pairs:,} pairs of 792 texts of 12 titles, five votes each; '
      'estimators, annotators with 200 bootstraps, a cross-validated text '
      'model, detectors, checks, and losses compared on 32 scenarios.'
    ],
  )


CASES: dict[str, Callable[..., Case]] = {
  'dawid_skene': dawid_skene_case,
  'noise_options': noise_options_case,
  'audit': audit_case,
}
"""Name -> (share of the full size, a keyword per known peer) -> case."""


def _peers(name: str) -> list[str]:
  if name in contenders.PEERS:
    return list(contenders.PEERS[name])
  return list(inspect.signature(CASES[name]).parameters)[1:]


if __name__ == '__main__':
  common.main(Config, run)
