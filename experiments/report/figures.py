"""Figures in PNG: panels side by side, the same look in every report."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np

matplotlib.use('Agg')

from matplotlib import pyplot as plt

from alignment.training.storage import make_directory


def figure(
  path: pathlib.Path,
  panels: Sequence[Callable[[plt.Axes], None]],
  *,
  title: str,
) -> None:
  """Draws panels side by side and saves them.

  Args:
    path: of the PNG; its folder is made.
    panels: each draws on the axes it is given.
    title: what was run, on what.
  """
  make_directory(path.parent)
  canvas, axes = plt.subplots(
    1, len(panels), figsize=(6.4 * len(panels), 4.6), layout='constrained'
  )
  for draw, ax in zip(panels, np.atleast_1d(axes), strict=True):
    draw(ax)
    ax.grid(alpha=0.25)
    ax.spines[['top', 'right']].set_visible(False)
  canvas.suptitle(title, fontsize=11)
  partial = path.with_suffix('.partial.png')
  canvas.savefig(partial, dpi=150)
  os.replace(partial, path)
  plt.close(canvas)


def colours(names: Sequence[str]) -> Mapping[str, str]:
  """A colour per name, the same in every panel."""
  cycle = plt.get_cmap('tab10' if len(names) <= 10 else 'tab20').colors
  return {
    name: matplotlib.colors.to_hex(cycle[i % len(cycle)])
    for i, name in enumerate(names)
  }
