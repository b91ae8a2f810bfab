"""Figures of an audit: annotators, suspicion, and how votes split."""

from __future__ import annotations

import pathlib

import numpy as np
from matplotlib import pyplot as plt

from alignment.noise.estimation.heterogeneity import HeterogeneityTest
from alignment.protocols.audit.findings import Findings
from experiments.report.figures import figure

NUM_ANNOTATORS = 40


def draw(directory: pathlib.Path, findings: Findings) -> list[str]:
  """Draws what there is to draw; returns the Markdown that shows it."""
  panels = [_suspicion(findings)]
  what = ['suspicion']
  if any(a.skill.low is not None for a in findings.annotators.ranked):
    panels.append(_annotators(findings))
    what.append('annotators')
  test = findings.rates.heterogeneity
  if test is not None and test.splits:
    panels.append(_splits(findings))
    what.append('splits of votes')
  name = 'figures/audit.png'
  figure(directory / name, panels, title=findings.subject.source[-80:])
  return [f'![{", ".join(what)}]({name})']


def common_splits(
  test: HeterogeneityTest,
) -> list[tuple[int, int, int, float]]:
  """The splits of those numbers of votes that a tenth of the rows have."""
  rows: dict[int, int] = {}
  for votes, _, seen, _ in test.splits:
    rows[votes] = rows.get(votes, 0) + seen
  total = sum(rows.values())
  return [split for split in test.splits if rows[split[0]] >= total / 10]


def _suspicion(findings: Findings):
  suspicion, label = findings.suspicion, findings.evidence.label
  wrong = suspicion.wrong(label)
  known = suspicion.posterior is not None

  def panel(ax: plt.Axes) -> None:
    values = wrong if known else suspicion.score
    ax.hist(values, bins=50, color='tab:blue')
    ax.set_yscale('log')
    ax.set_xlabel(
      'P(label is wrong)'
      if known
      else f'score of {suspicion.detector} (no probability)'
    )
    ax.set_ylabel('rows')
    ax.set_title('How suspicious labels are')

  return panel


def _annotators(findings: Findings):
  ranked = [a for a in findings.annotators.ranked if a.skill.low is not None]
  shown = ranked[:NUM_ANNOTATORS][::-1]

  def panel(ax: plt.Axes) -> None:
    place = np.arange(len(shown))
    values, low, high = np.array([a.skill[:3] for a in shown]).T
    ax.hlines(place, low, high, color='tab:gray')
    ax.plot(values, place, 'o', color='tab:blue', markersize=4)
    ax.set_yticks(place, [a.name[:24] for a in shown], fontsize=6)
    ax.set_xlim(0, 1)
    ax.set_xlabel(findings.annotators.skill_is.split(',')[0])
    ax.set_title(f'The worst {len(shown)} of {len(ranked)} annotators')

  return panel


def _splits(findings: Findings):
  splits = common_splits(findings.rates.heterogeneity)

  def panel(ax: plt.Axes) -> None:
    place = np.arange(len(splits))
    ax.bar(place - 0.2, [s[2] for s in splits], 0.4, label='observed')
    ax.bar(place + 0.2, [s[3] for s in splits], 0.4, label='of one rate')
    ax.set_xticks(place, [f'{s[0] - s[1]}-{s[1]}' for s in splits])
    ax.set_xlabel('votes for and against')
    ax.set_ylabel('rows')
    ax.set_title('How votes split')
    ax.legend(frameon=False)

  return panel
