"""Rotary position embedding: which features turn, how fast, and how far."""

from __future__ import annotations

import dataclasses
from typing import Literal

SCALINGS = ('none', 'linear', 'llama3', 'yarn')


@dataclasses.dataclass(frozen=True)
class Rotary:
  """Frequencies of a rotary embedding, and how they reach longer contexts.

  Attributes:
    theta: > 0, base of the frequencies.
    fraction: in (0, 1], the share of a head's features that turn; the first
      ones, an even number of them.
    scaling: 'none'; 'linear' divides all frequencies by `factor`; 'llama3'
      divides the slow ones and keeps the fast; 'yarn' does so by a ramp and
      scales cos and sin.
    factor: ≥ 1.
    original_context: ≥ 1, tokens of context before scaling ('llama3', 'yarn').
    low_freq_factor, high_freq_factor: of 'llama3', 0 < low < high.
    beta_slow, beta_fast: of 'yarn', 0 < slow < fast, in turns over the
      original context.
    attention_factor: > 0, what cos and sin are multiplied by under 'yarn'.

  Raises:
    ValueError: a value outside its range.
  """

  theta: float = 10_000.0
  fraction: float = 1.0
  scaling: Literal['none', 'linear', 'llama3', 'yarn'] = 'none'
  factor: float = 1.0
  original_context: int = 8192
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  beta_slow: float = 1.0
  beta_fast: float = 32.0
  attention_factor: float = 1.0

  def __post_init__(self):
    wanted = {
      'theta': (self.theta > 0, '> 0'),
      'fraction': (0 < self.fraction <= 1, 'in (0, 1]'),
      'scaling': (self.scaling in SCALINGS, f'one of {SCALINGS}'),
      'factor': (self.factor >= 1, '≥ 1'),
      'original_context': (self.original_context >= 1, '≥ 1'),
      'low_freq_factor': (
        0 < self.low_freq_factor < self.high_freq_factor,
        f'in (0, high_freq_factor = {self.high_freq_factor})',
      ),
      'beta_slow': (
        0 < self.beta_slow < self.beta_fast,
        f'in (0, beta_fast = {self.beta_fast})',
      ),
      'attention_factor': (self.attention_factor > 0, '> 0'),
    }
    for name, (holds, range_) in wanted.items():
      if not holds:
        value = getattr(self, name)
        raise ValueError(f'{name} must be {range_}, got {value!r}')
