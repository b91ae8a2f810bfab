"""Simulated labels with a known truth, as evidence."""

import dataclasses

import numpy as np
from scipy import special

from alignment.noise.crowd.table import VoteTable
from alignment.noise.evidence import Evidence


def one_label(seed, *, rows=3000, rate=0.2, scale=0.4, spread=2.0, skill=1.0):
  """Pairs with one label, flipped at `rate`, and a model that sees margins.

  Args:
    seed: of everything.
    rows: B.
    rate: flip rate, uniform.
    scale: what the model's log-odds are of the true ones.
    spread: standard deviation of the true log-odds.
    skill: correlation of the model's log-odds with the true ones; 0 is noise
      of the same size.

  Returns:
    The evidence, and the true classes.
  """
  rng = np.random.default_rng(seed)
  margin = rng.normal(0, spread, rows)
  truth = (rng.random(rows) > special.expit(margin)).astype(np.int32)
  label = np.where(rng.random(rows) < rate, 1 - truth, truth)
  noise = rng.normal(0, spread, rows)
  seen = skill * margin + np.sqrt(1 - skill**2) * noise
  q = special.expit(scale * seen)
  evidence = Evidence(
    label=label.astype(np.int32),
    num_classes=2,
    group=np.arange(rows, dtype=np.int32) // 3,
    group_name='prompts',
    probs=np.stack([q, 1 - q], axis=1),
    features=rng.normal(0, 1, (rows, 1)) - 0.3 * np.sign(margin)[:, None],
    feature_names=('length_difference',),
  )
  return evidence, truth


def voted(seed, *, rows=1500, votes=3, workers=12, **settings):
  """The same with several votes a pair, the first of which is the label."""
  evidence, truth = one_label(seed, rows=rows, **settings)
  rng = np.random.default_rng([seed, 1])
  skill = np.linspace(0.55, 0.95, workers)
  worker = np.argsort(rng.random((rows, workers)), axis=1)[:, :votes]
  right = rng.random((rows, votes)) < skill[worker]
  said = np.where(right, truth[:, None], 1 - truth[:, None])
  table = VoteTable(
    np.repeat(np.arange(rows), votes),
    worker.reshape(-1),
    said.reshape(-1),
    rows,
    workers,
    2,
  )
  evidence = dataclasses.replace(
    evidence,
    label=said[:, 0].astype(np.int32),
    annotator_id=worker[:, 0].astype(np.int32),
    votes=table,
  )
  return evidence, truth
