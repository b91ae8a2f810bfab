"""How noisy are these labels, which are wrong, and what can nobody know?

Any preference or label file in; out: flip rates with intervals, each with the
assumption that identifies it (or a refusal that says what would give one), the
likeliest flips with their texts, the worst annotators, what length and place
alone explain, contradictions and cycles, and a cleaned file that any trainer
loads. No language model is needed: texts are read by a linear model, out of
fold. What it adds to estimators and detectors from the literature: one command,
intervals over whole groups, identifiability first, a rate from cycles among
texts that recur, and predictions held against what the data themselves observe.

  Pairs, JSONL, Parquet or tfds:, {prompt, chosen, rejected} or two transcripts:
    python -m experiments.audit --data=my.jsonl
  A folder of crowd votes, under a minute on two cores:
    python -m experiments.audit --data=votes/
  One row per label, columns task, worker, label, or worker, left, right, label:
    python -m experiments.audit --data=labels.csv
  One row per task, a column per annotator, two answers compared:
    python -m experiments.audit --data=wide.jsonl --votes=ann1,ann2,ann3 \\
      --pair=response1,response2 --tie=0 --group=instruction
  One label per text, with what its giver says about it:
    python -m experiments.audit --data=texts.csv --label=answer --text=text \\
      --confidence=confidence --group=source

Without votes, repeats, known truths or stated probabilities, no rate is given:
flips and preferences that are truly divided look the same in single labels.
Labels are never flipped or dropped unless the command says so.

Contrast, written before the numbers below and after trials on the same data: a
prediction holds if its 95 % interval meets that of the observation (known
truths; cycles among texts that recur, as a lower bound where rates of rows
differ). Where predictions of independent errors fail, annotators must have been
flagged as agreeing too often. Text alone finds errors where its AUROC beats
that of length by more than the intervals.

Obtained. One vote's error: two people on refusals, against the label settled
from theirs, predicted .018 [.015, .023], observed .019 [.015, .024], holds; two
automatic judges on the same, .084 [.074, .095] against .179 [.161, .199],
fails, unflagged: of two judges nothing but known truths shows it; 65
configurations of six judge models, .182 [.167, .198] against .339 [.251, .441]
over models, fails, with 552 of 8,385 pairs flagged. Error of the majority of
three careful annotators: .003 [.001, .006], by cycles .003 [.001, .020], holds.
Crowd votes on 12,974 pairs of arguments: rates of rows differ (p < 1e-6), so
one rate for all, .173 [.143, .210], is a lower bound; splits of held-out votes
are as predicted from two or four (11 of 11 hold); text finds errors at an AUROC
of .775 [.734, .809], length at .748 [.719, .783]: undecided. One label per pair
(2,308 pairs, harmless): no rate, and any from 0 to .25 fits.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, Literal

from alignment.data.label_layouts import Naming
from alignment.protocols.audit import cleaning
from alignment.protocols.audit.findings import examine
from alignment.protocols.audit.sources import Request, read_subject
from alignment.training import rundir
from experiments import common
from experiments.common import field
from experiments.report import audit as report


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
  data: str = field(
    '',
    'What to audit: a .jsonl, .jsonl.gz, .parquet, .csv or .csv.gz file, a '
    'folder of crowd votes, or tfds:name/config:split.',
  )
  columns: tuple[str, ...] = field(
    (),
    'ours=theirs, where a file names its columns otherwise: chosen=better, or '
    'worker=rater in a long table.',
  )
  votes: tuple[str, ...] = field(
    (), 'Columns of a table that are annotators, one row per task.'
  )
  label: str = field(
    '', 'Column of a table with the label at hand (a vote, in a long table).'
  )
  text: tuple[str, ...] = field(
    (), 'Columns of a table with the text that is labelled.'
  )
  pair: tuple[str, ...] = field(
    (), 'Two columns of a table with the texts that are compared.'
  )
  gold: str = field('', 'Column with the true class, where it is known.')
  group: str = field(
    '',
    'Column with what was drawn together; intervals are over it. If not given: '
    "the file's group, its first turns or prompts, else rows.",
  )
  annotator: str = field('', 'Column that says who gave the label at hand.')
  confidence: str = field(
    '', 'Column with P(label at hand is right), as its giver states it.'
  )
  tie: tuple[str, ...] = field((), 'Answers of a table that name no class.')
  classes: tuple[str, ...] = field(
    (),
    'All classes of a table. If not given: those of --gold, else of labels.',
  )
  slice: tuple[str, ...] = field(
    (), 'Columns whose values are audited apart, beside groups and lengths.'
  )
  strict: bool = field(
    False, 'Refuse what is otherwise dropped and counted on reading.'
  )
  action: Literal[
    'auto', 'keep', 'reweight', 'soften', 'flip', 'drop', 'mixed', 'ask'
  ] = field(
    'auto',
    'What the cleaned file does to suspicious labels. auto softens where it is '
    'known how likely a label is wrong, else changes nothing and asks.',
  )
  ask_budget: int | None = field(
    None,
    'Rows to list for a human, those first whose answer is worth most. If not '
    'given: 100 where the action is ask, else none.',
    within='[0, inf)',
  )
  assumed_flip_rate: float | None = field(
    None,
    'Share of wrong labels that you vouch for, where the data identify none.',
    within='[0, 0.5)',
  )
  scenarios: int = field(
    32,
    'Simulated noise scenarios on these pairs, half to choose a loss by and '
    'half to judge it; at least 8, or 0 for no recommendation.',
    within='[0, inf)',
  )
  max_rows: int = field(
    0, 'Audit a random sample of so many rows; 0 takes all.', within='[0, inf)'
  )
  seed: int = field(
    0, 'Of orders, folds, bootstraps and ties.', within='[0, inf)'
  )
  num_shown: int = field(
    50, 'Likeliest flips shown with their texts.', within='[0, inf)'
  )


def run(config: Config) -> dict[str, Any]:
  """Audits one data set; writes report, cleaned file and rows."""
  told = _teller()
  # Before anything is written, so that a bad flag leaves no run behind.
  subject = read_subject(_request(config))
  told(f'{len(subject):,} rows read')
  state = _state(config.data)
  opened = common.open_run(config)
  if opened.is_finished and opened.result['state'] != state:
    raise ValueError(
      f'--data={config.data}: has changed since {opened.directory} was '
      'written; choose another --output_dir, or delete that one'
    )
  if common.is_finished(opened):
    return opened.result
  findings = examine(
    subject,
    seed=config.seed,
    action=config.action,
    ask_budget=config.ask_budget,
    assumed_flip_rate=config.assumed_flip_rate,
    scenarios=config.scenarios,
    told=told,
  )
  directory = pathlib.Path(opened.directory)
  paths = cleaning.write(
    directory / 'cleaned.jsonl', subject, findings.plan, findings.suspicion
  )
  told('cleaned file written')
  result = report.write(directory, findings, paths, num_shown=config.num_shown)
  result['state'] = state
  rundir.finish(opened, result)
  told(f'finished: {directory / "report.md"}')
  return result


def _request(config: Config) -> Request:
  renamed = {}
  for entry in config.columns:
    ours, equals, theirs = entry.partition('=')
    if not (ours and equals and theirs):
      raise ValueError(f'--columns={entry}: want ours=theirs')
    renamed[ours] = theirs
  keys = {name: renamed.pop(name) for name in _TABLE_KEYS if name in renamed}
  return Request(
    data=config.data,
    naming=Naming(
      **keys,
      votes=config.votes,
      label=config.label,
      text=config.text,
      pair=config.pair,
      gold=config.gold,
      group=config.group,
      annotator=config.annotator,
      confidence=config.confidence,
      ties=config.tie,
      classes=config.classes,
    ),
    columns=renamed,
    slices=config.slice,
    strict=config.strict,
    seed=config.seed,
    max_rows=config.max_rows,
  )


_TABLE_KEYS = ('task', 'worker', 'left', 'right')
"""What --columns renames in a table of labels; the rest has its own flags."""


def _state(path: str) -> list[Any]:
  """Name, size and time of every file read; [] where they are not files."""
  if os.path.isdir(path):
    names = [os.path.join(path, name) for name in sorted(os.listdir(path))]
  else:
    names = [path]
  return [
    [name, os.stat(name).st_size, os.stat(name).st_mtime_ns]
    for name in names
    if os.path.isfile(name)
  ]


def _teller() -> Callable[[str], None]:
  """Prints lines with the seconds since it was made."""
  begun = time.monotonic()

  def told(line: str) -> None:
    print(f'{time.monotonic() - begun:6.1f} s  {line}', flush=True)

  return told


if __name__ == '__main__':
  common.main(Config, run)
