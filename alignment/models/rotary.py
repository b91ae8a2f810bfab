"""Rotary position embedding: which features turn, how fast, and how far."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np

from alignment.types import Array

SCALINGS = ('none', 'linear', 'llama3', 'yarn')


@dataclasses.dataclass(frozen=True)
class Rotary:
  """Frequencies of a rotary embedding, and how they reach longer contexts.

  Attributes:
    theta: > 1, base of the frequencies.
    fraction: in (0, 1], the share of a head's features that turn: the first
      ones, an even number.
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
      'theta': (1 < self.theta < math.inf, '> 1'),
      'fraction': (0 < self.fraction <= 1, 'in (0, 1]'),
      'scaling': (self.scaling in SCALINGS, f'one of {SCALINGS}'),
      'factor': (1 <= self.factor < math.inf, '≥ 1'),
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

  def turned(self, head_dim: int) -> int:
    """How many of a head's features turn: the whole part of fraction · F."""
    return int(head_dim * self.fraction)

  def frequencies(self, head_dim: int) -> np.ndarray:
    """Radians per position of every pair of features, `[turned / 2]` float64.

    f[k] = theta^(−2k / turned), scaled:

    - linear: f / factor
    - llama3: with w = 2π / f, the tokens of one turn, and c the original
      context: f where w < c / high_freq_factor, f / factor where
      w > c / low_freq_factor; between, (1 − s) f / factor + s f with
      s = (c / w − low_freq_factor) / (high_freq_factor − low_freq_factor)
    - yarn: r f / factor + (1 − r) f, r a ramp over k from 0 at the pair that
      makes beta_fast turns in the original context to 1 at the one that makes
      beta_slow, both rounded outwards

    Source: Chen et al., "Extending Context Window of Large Language Models via
    Positional Interpolation", arXiv:2306.15595 (linear); Grattafiori et al.,
    "The Llama 3 Herd of Models", arXiv:2407.21783, and its published code
    (llama3); Peng et al., "YaRN: Efficient Context Window Extension of Large
    Language Models", arXiv:2309.00071 (yarn).
    """
    turned = self.turned(head_dim)
    plain = self.theta ** -(np.arange(0, turned, 2) / turned)
    if self.scaling == 'none':
      return plain
    return plain + (plain / self.factor - plain) * self._slowed(plain, turned)

  def _slowed(self, plain: np.ndarray, turned: int) -> np.ndarray | float:
    """How far every frequency goes towards frequency / factor, in [0, 1]."""
    if self.scaling == 'linear':
      return 1.0
    if self.scaling == 'llama3':
      turns = self.original_context * plain / (2 * math.pi)
      span = self.high_freq_factor - self.low_freq_factor
      return np.clip((self.high_freq_factor - turns) / span, 0.0, 1.0)

    def pair_with(turns: float) -> float:
      wavelength = self.original_context / turns
      return (
        turned * math.log(wavelength / (2 * math.pi)) / math.log(self.theta) / 2
      )

    first = max(math.floor(pair_with(self.beta_fast)), 0)
    last = min(math.ceil(pair_with(self.beta_slow)), turned - 1)
    # A ramp of no length is a step.
    length = last - first if last != first else 1e-3
    return np.clip((np.arange(turned // 2) - first) / length, 0.0, 1.0)


Turn = tuple[Array, Array] | None
"""What `rotate` multiplies by; None where nothing turns."""


def rotary_angles(
  positions: Array, head_dim: int, rotary: Rotary
) -> tuple[Array, Array]:
  """What `rotate` multiplies by at each position; once per forward pass.

  angle[k] = positions · rotary.frequencies[k]

  Args:
    positions: `[R, T]` int32.
    head_dim: F.
    rotary: frequencies, and the factor of cos and sin.

  Returns:
    `[R, T, turned]` (cos, cos) and `[R, T, turned]` (−sin, sin) of the angles.
  """
  frequencies = rotary.frequencies(head_dim).astype(np.float32)
  angles = positions[..., None].astype(jnp.float32) * frequencies
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  if rotary.scaling == 'yarn':
    cos, sin = cos * rotary.attention_factor, sin * rotary.attention_factor
  return jnp.concatenate([cos, cos], -1), jnp.concatenate([-sin, sin], -1)


def rotate(features: Array, cos: Array, sin: Array) -> Array:
  """Rotary position embedding: of n features that turn, f with f + n / 2.

  The dot product of two rotated vectors depends on their positions through
  the difference alone.

  Args:
    features: `[R, T, H, G, F]`; the first n of F turn.
    cos: `[R, T, n]`, the first of `rotary_angles`.
    sin: `[R, T, n]`, the second.

  Returns:
    The shape of `features`.

  Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position
  Embedding", arXiv:2104.09864; the pairs are halves of the head instead of
  neighbours, as in the published Llama weights.
  """
  turned = cos.shape[-1]
  turning, still = features[..., :turned], features[..., turned:]
  swapped = jnp.roll(turning, turned // 2, axis=-1)
  turning = turning * cos[:, :, None, None] + swapped * sin[:, :, None, None]
  if not still.shape[-1]:
    return turning
  return jnp.concatenate([turning, still], axis=-1)
