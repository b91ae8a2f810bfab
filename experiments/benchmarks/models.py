"""Cases that run a language model: throughput, memory, start-up.

Every contender, ours too, works in a process of its own on the same batches;
the contenders take turns step by step (`timing.measure`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks import counting, workload
from experiments.benchmarks.contenders import (
  PEERS,
  ModelConfig,
  contenders,
  figures,
  floors,
)
from experiments.benchmarks.processes import Worker
from experiments.benchmarks.workload import SIZES, Texts, Work
from experiments.report import timing
from experiments.report.tables import table
from experiments.report.timing import Case, Contender, Figure, Seconds

BATCHES = 8
"""Different batches; steps go round them."""
MEMORY = 0.85
"""Most share of TRL's peak memory that ours is asked to take."""
START_UP = 5.0
"""Most seconds from process start to first step, programs compiled before."""


class Outcome(NamedTuple):
  """What a case gave.

  Attributes:
    figures: rows of `timing.figures`.
    contenders: a row for each.
    parts: paragraphs of the report.
  """

  figures: list[dict[str, Any]]
  contenders: list[dict[str, Any]]
  parts: list[str]


def run(
  case: str, config: ModelConfig, on_round: Callable[[], None]
) -> Outcome:
  """Measures one case.

  Args:
    case: key of `CASES`.
    config: the flags of `benchmark`.
    on_round: called after every round.

  Raises:
    WorkerError: a contender that does not work.
  """
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder)
    texts = workload.draw(
      num_batches=BATCHES,
      batch_size=config.batch_size,
      sequence_length=config.sequence_length,
      vocab_size=SIZES[config.model_size].vocab_size,
    )
    workload.save(path / 'texts.npz', texts)
    return CASES[case](case, config, texts, path, on_round)


def rounds(case: str, config: ModelConfig) -> int:
  """How many timed rounds a case takes."""
  return config.rounds if case == 'start_up' else config.steps


def _steps(case, config, texts, folder, on_round) -> Outcome:
  """Steps side by side, then memory, then the peaks of the machine."""
  works = contenders(case, config, str(folder / 'texts.npz'))
  with contextlib.ExitStack() as stack:
    workers = {
      name: stack.enter_context(_worker(name, work, config, folder))
      for name, work in works.items()
    }
    tokens = counting.tokens(texts, case, config.new_tokens)
    timed = Case(
      {
        name: Contender(_stepper(worker), tokens, 'tokens')
        for name, worker in workers.items()
      },
      figures(works, floors(works, config)),
      [_facts(case, config, texts)],
    )
    measured = timing.measure(timed, config.steps, on_round)
    memory = {name: w.ask(memory=True) for name, w in workers.items()}
    peaks = [w.ask(peaks=True) for w in _one_per_side(works, workers)]
    machine = _machine(works, workers)
  rows = [
    _row(name, works[name], texts, measured, workers[name], memory[name], peaks)
    for name in works
  ]
  found = timing.figures(
    timed, measured, config.clock, allow_busy=config.allow_busy
  )
  found += _memory_figures(works, rows)
  shown = [
    machine,
    *timed.facts,
    _table(case, rows),
    timing.figure_table(found),
  ]
  shown.append(_peaks_text(peaks))
  return Outcome(found, rows, shown)


def _start_up(case, config, texts, folder, on_round) -> Outcome:
  """Whole processes, from their start to the end of their first step."""
  shared = {
    'case': 'dpo',
    'size': config.model_size,
    'texts': str(folder / 'texts.npz'),
    'threads': config.threads,
    'dtype': config.matmul_dtype[0],
    'packing': config.packing[0],
    'attention': config.attention[0],
  }

  def start(name: str, work: Work) -> Seconds:
    with _worker(name, work, config, folder) as worker:
      return worker.start_up

  def ours(cache: str) -> Seconds:
    work = Work('ours', **shared, cache_dir=str(folder / cache))
    return start('ours', work)

  fresh = itertools.count()
  calls = {
    'ours, nothing compiled before': lambda: ours(f'fresh_{next(fresh)}'),
    # The untimed round fills it.
    'ours, compiled before': lambda: ours('kept'),
  }
  for peer in PEERS['start_up']:
    if peer in config.peer:
      work = Work(peer, **shared)
      calls[peer] = functools.partial(start, peer, work)
  first, second, *others = calls
  timed = Case(
    {name: Contender(call) for name, call in calls.items()},
    [
      Figure(first),
      Figure(second, most=START_UP if config.model_size == 's1' else np.inf),
      *(Figure(other, second) for other in others),
    ],
    [
      'A process from its start to the end of its first DPO step; '
      f'{config.matmul_dtype[0]}.'
    ],
  )
  measured = timing.measure(timed, config.rounds, on_round)
  found = timing.figures(
    timed, measured, config.clock, allow_busy=config.allow_busy
  )
  rows = timing.contender_rows(timed, measured)
  return Outcome(
    found, rows, [*timed.facts, *timing.show(timed, measured, found)]
  )


CASES = {
  'dpo': _steps,
  'sft': _steps,
  'forward': _steps,
  'decode': _steps,
  'start_up': _start_up,
}
"""Name -> (name, config, texts, folder, on_round) -> Outcome."""


def pythons(config: ModelConfig) -> dict[str, str]:
  """Peer -> its interpreter, of --peer_python.

  Raises:
    ValueError: not `name=path`, an unused name, or a path that is no file.
  """
  found = {}
  for entry in config.peer_python:
    name, _, path = entry.partition('=')
    if name not in config.peer:
      raise ValueError(
        f'--peer_python={entry}: want name=path of a --peer, which are '
        f'{", ".join(config.peer) or "none"}'
      )
    if not pathlib.Path(path).is_file():
      raise ValueError(f'--peer_python={entry}: {path!r} is no file')
    found[name] = path
  return found


def _worker(
  name: str, work: Work, config: ModelConfig, folder: pathlib.Path
) -> Worker:
  python = pythons(config).get(work.side, sys.executable)
  log = folder / f'{name.replace(" ", "_")}.log'
  return Worker(name, work, log, python)


def _stepper(worker: Worker) -> Callable[[], Seconds]:
  indices = itertools.count(1)  # its first step took batch 0
  return lambda: worker.step(next(indices) % BATCHES)


def _one_per_side(works: Mapping[str, Work], workers: Mapping[str, Worker]):
  first = {}
  for name, work in works.items():
    first.setdefault(work.side, workers[name])
  return first.values()


def _machine(works, workers) -> str:
  """Devices, cores and versions, as the processes told them."""
  told = [workers[name].started for name in works]
  devices = dict.fromkeys(started['device'] for started in told)
  versions = {k: v for started in told for k, v in started['versions'].items()}
  listed = ', '.join(f'{package} {v}' for package, v in versions.items())
  threads = next(iter(works.values())).threads or os.cpu_count()
  return (
    f'{" and ".join(devices)}, {os.cpu_count()} cores of which {threads} '
    f'used, Python {platform.python_version()}, {listed}.'
  )


def _row(
  name: str,
  work: Work,
  texts: Texts,
  measured: timing.Measured,
  worker: Worker,
  memory: Mapping[str, Any],
  peaks: list[Mapping[str, Any]],
) -> dict[str, Any]:
  """All that is known of a contender; rates by the median wall time."""
  size = SIZES[work.size]
  tokens = counting.tokens(texts, work.case, work.new_tokens)
  seconds = float(np.median(measured.wall[name]))
  flops = tokens * counting.flops_per_token(size, work) / seconds
  best = max(peak['matmul'][work.dtype] for peak in peaks)
  row = {
    'name': name,
    **dataclasses.asdict(work),
    'texts': '',
    'device': worker.started['device'],
    'wall': timing.spread(measured.wall[name]),
    'cpu': timing.spread(measured.cpu[name]),
    'tokens_per_second': tokens / seconds,
    'flops_per_second': flops,
    'matmul_share': flops / best,
    'bandwidth_share': None,
    'compile': max(0.0, worker.started['first']['wall'] - seconds),
    'start_up': worker.start_up.wall,
    **memory,
  }
  if work.case == 'decode':
    read = counting.decode_bytes(size, texts, work) / seconds
    row['bandwidth_share'] = read / max(peak['copy'] for peak in peaks)
  return row


def _memory_figures(works, rows) -> list[dict[str, Any]]:
  """Peak memory of ours over that of TRL doing the same."""
  by_name = {row['name']: row for row in rows}
  found = []
  for figure in figures(works, {}):
    theirs, ours = by_name[figure.of], by_name[figure.over]
    if theirs['side'] != 'trl':
      continue
    value = _memory(ours) / _memory(theirs)
    most = MEMORY if theirs['device_memory'] is None else np.inf
    wanted = Figure(f'memory of {ours["name"]}', theirs['name'], most=most)
    found.append(timing.judged(wanted, np.array([value])))
  return found


def _memory(row: Mapping[str, Any]) -> int:
  """Peak bytes of the device, or of the process where that is the host."""
  return row['device_memory'] or row['peak_rss']


def _facts(case: str, config: ModelConfig, texts: Texts) -> str:
  prompt, chosen, rejected = texts.lengths.mean((0, 1))
  n = counting.matmul_params(SIZES[config.model_size])
  return (
    f'Model {config.model_size}, N = {n / 1e6:,.1f} M weights that are '
    f'multiplied; {config.batch_size} pairs a step, prompt and completion of '
    f'at most {config.sequence_length} tokens, on average {prompt:.0f} and '
    f'{(chosen + rejected) / 2:.0f}; {_COUNTED[case]} '
    'Batches are laid out, padded or collated before they are timed. Every '
    'library brings its own random weights of the same shapes, and computes '
    'the metrics it always does (TRL: entropy, mean logits and top-1 accuracy '
    'as well).'
  )


_COUNTED = {
  'dpo': 'tokens/s count the prompt for both completions, FLOP/s 6 N a token '
  '(4 N for adapters) and 2 N for a reference in the step.',
  'sft': 'tokens/s count prompt and chosen completion, FLOP/s 6 N a token (4 N '
  'for adapters).',
  'forward': 'tokens/s count the prompt for both completions, FLOP/s 2 N.',
  'decode': 'tokens/s count new tokens, their time includes reading the '
  'prompts; the bandwidth bound reads all weights and the cache so far once '
  'for each.',
}


def _table(case: str, rows: list[Mapping[str, Any]]) -> str:
  share = 'bandwidth_share' if case == 'decode' else 'matmul_share'
  header = (
    'contender',
    'ms a step',
    'tokens/s',
    'GFLOP/s',
    'of bandwidth' if case == 'decode' else 'of matmul peak',
    'compile s',
    'start s',
    'memory GiB',
  )
  return table(
    header,
    [
      (
        row['name'],
        timing.text(tuple(1000 * s for s in row['wall'])),
        f'{row["tokens_per_second"]:,.0f}',
        f'{row["flops_per_second"] / 1e9:,.0f}',
        f'{row[share]:.1%}',
        f'{row["compile"]:.1f}',
        f'{row["start_up"]:.1f}',
        f'{_memory(row) / 2**30:.2f}',
      )
      for row in rows
    ],
  )


def _peaks_text(peaks: list[Mapping[str, Any]]) -> str:
  best = {
    dtype: max(peak['matmul'][dtype] for peak in peaks) / 1e9
    for dtype in ('float32', 'bfloat16')
  }
  copy = max(peak['copy'] for peak in peaks) / 1e9
  return (
    f'Best matrix products of any contender in this run: {best["float32"]:,.0f}'
    f' GFLOP/s float32, {best["bfloat16"]:,.0f} bfloat16; copy {copy:,.0f} '
    'GB/s. Compile: the first step less the median one. Start: of the process, '
    'to the end of its first step, nothing compiled before.'
  )
