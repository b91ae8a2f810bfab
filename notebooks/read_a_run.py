# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reading a run
#
# An experiment leaves a directory; this notebook reads one: what was run, how
# training went, which loss came to what, and the report. Set `RUN` to a
# directory, or the environment variable of that name before starting.
#
# `read_a_run.py` is the source; `jupytext --to ipynb notebooks/read_a_run.py`
# makes the notebook.

# %%
import collections
import json
import os
import pathlib

import numpy as np
from matplotlib import pyplot as plt

HERE = pathlib.Path.cwd()
ROOT = HERE.parent if HERE.name == 'notebooks' else HERE
RUN = pathlib.Path(os.environ.get('RUN') or ROOT / 'runs' / 'noisy_dpo')


def rows(name):
  """The rows of a JSON-lines file; none if the run did not write it."""
  path = RUN / name
  lines = path.read_text().splitlines() if path.exists() else []
  return [json.loads(line) for line in lines]


def averaged(pairs):
  """(x, y) pairs -> increasing x and the mean y at each."""
  groups = collections.defaultdict(list)
  for x, y in pairs:
    groups[x].append(y)
  return sorted(groups), [np.mean(groups[x]) for x in sorted(groups)]


# %% [markdown]
# ## What was run

# %%
config = json.loads((RUN / 'config.json').read_text())
for name, value in config['identity'].items():
  print(f'{name:>24}  {value}')
for place in config['provenance']:
  packages = place['packages']
  print(
    f'Python {place["python"]}, JAX {packages["jax"]}, '
    f'commit {place["git_commit"]}'
  )
print('finished' if (RUN / 'finished.json').exists() else 'not finished')

# %% [markdown]
# ## How training went
#
# `metrics.jsonl` has one row per logging interval. Its text columns say which
# of many trainings a row belongs to; the step is that training's own. A line
# is the mean over trainings, supervised or on preferences, the band runs from
# their 5th to their 95th percentile.

# %%
metrics = rows('metrics.jsonl')
wanted = ('loss', 'rewards/accuracies', 'rewards/margins', 'logps/chosen')
shown = [name for name in wanted if any(name in row for row in metrics)]
if shown:
  _, axes = plt.subplots(
    1, len(shown), figsize=(4 * len(shown), 3), layout='constrained'
  )
  for name, ax in zip(shown, np.atleast_1d(axes), strict=True):
    for kind, has_pairs in (('supervised', False), ('preferences', True)):
      by_step = collections.defaultdict(list)
      for row in metrics:
        # null is a number that was not finite; `notes` in the row says which.
        is_wanted = ('rewards/margins' in row) == has_pairs
        if is_wanted and row.get(name) is not None:
          by_step[row['step']].append(row[name])
      if by_step:
        steps = sorted(by_step)
        bands = [np.percentile(by_step[step], (5, 95)) for step in steps]
        means = [np.mean(by_step[step]) for step in steps]
        ax.plot(steps, means, label=kind)
        ax.fill_between(steps, *np.transpose(bands), alpha=0.2)
    ax.set(title=name, xlabel='step')
    ax.legend()
  plt.show()

# %% [markdown]
# ## Which loss came to what
#
# `eval/cells.jsonl` has one row per loss, seed and flip rate: the whole tuning
# curve, and what was measured at the stop that noisy validation selected.
# Means and standard errors are over seeds; the intervals that count are those
# of *paired* differences, in the report below.

# %%
cells = rows('eval/cells.jsonl')
groups = collections.defaultdict(list)
for cell in cells:
  groups[cell['flip_rate'], cell['name']].append(cell)
for (flip_rate, name), group in sorted(groups.items()):
  scores = []
  for metric in ('accuracy', 'gold', 'kl'):
    values = [cell['selected']['summary'].get(metric) for cell in group]
    if None not in values:
      error = np.std(values, ddof=1) / len(values) ** 0.5 if values[1:] else 0
      scores.append(f'{metric} {np.mean(values):6.3f} ± {error:.3f}')
  print(f'{flip_rate:4g}  {name:<24} {"   ".join(scores)}')

# %% [markdown]
# Left: accuracy on clean labels while training, at the highest flip rate that
# losses compete at; a falling curve is a loss that learns the flips. Right:
# gold reward against KL to the start for the learned log-ratios at other
# strengths; the dotted line is the best possible.

# %%
competing = [cell for cell in cells if cell['role'] == 'contestant']
if competing:
  worst = max(cell['flip_rate'] for cell in competing)
  competing = [cell for cell in competing if cell['flip_rate'] == worst]
  _, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout='constrained')
  for name in dict.fromkeys(cell['name'] for cell in competing):
    group = [cell for cell in competing if cell['name'] == name]
    # The learning rate that was selected most often.
    rates = [cell['selected']['stop']['learning_rate'] for cell in group]
    rate = max(rates, key=rates.count)
    points = [
      (stop['step'], stop['clean_accuracy'])
      for cell in group
      for stop in cell['curve']
      if stop['learning_rate'] == rate
    ]
    left.plot(*averaged(points), marker='.', label=f'{name}, {rate:g}')
    curves = [cell['selected']['curves'] for cell in group]
    if all('gold' in curve for curve in curves):
      right.plot(
        np.mean([curve['kl'] for curve in curves], axis=0),
        np.mean([curve['gold'] for curve in curves], axis=0),
        marker='.',
        label=name,
      )
  curves = competing[0]['selected']['curves']
  if 'optimum_kl' in curves:
    right.plot(
      curves['optimum_kl'], curves['optimum_gold'], 'k:', label='optimum'
    )
  left.set(xlabel='step', ylabel='clean accuracy', title=f'flips {worst:g}')
  right.set(xlabel='KL to the start (nats)', ylabel='gold', xscale='symlog')
  left.legend(fontsize=7)
  # Real preferences have no exact rewards to draw.
  right.set_visible(bool(right.lines))
  plt.show()

# %% [markdown]
# ## The report

# %%
report = RUN / 'report.md'
print(report.read_text() if report.exists() else 'no report yet')

# %%
for path in sorted((RUN / 'figures').glob('*.png')):
  image = plt.imread(path)
  plt.figure(figsize=(image.shape[1] / 150, image.shape[0] / 150))
  plt.imshow(image)
  plt.axis('off')
  plt.title(path.name)
  plt.show()
