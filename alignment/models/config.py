"""Sizes and choices of the transformer, checked when they are written."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from alignment.models.rotary import Rotary

SIZES = (
  'vocab_size',
  'width',
  'depth',
  'num_heads',
  'num_kv_heads',
  'head_dim',
  'mlp_width',
  'head_chunk',
)
OPTIONAL_SIZES = ('context', 'window')
POSITIVE = (
  'norm_eps',
  'query_scale',
  'attention_softcap',
  'logit_softcap',
  'embedding_scale',
)
SWITCHES = (
  'post_norms',
  'qk_norm',
  'parallel',
  'gated',
  'qkv_bias',
  'output_bias',
  'mlp_bias',
  'tied_head',
  'remat',
  'scan_layers',
)
CHOICES = {
  'norm': ('rms', 'layer'),
  'activation': ('silu', 'gelu', 'gelu_tanh'),
  'head': ('vocabulary', 'scalar', 'both'),
  'matmul_dtype': ('float32', 'bfloat16'),
  'attention': ('auto', 'dense', 'blocks', 'splash', 'cudnn'),
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """A decoder-only transformer; `V` is `vocab_size`, `D` is `width`.

  Attributes:
    vocab_size: ≥ 1.
    width: ≥ 1, of the residual stream.
    depth: ≥ 1, layers.
    num_heads: ≥ 1, query heads.
    num_kv_heads: ≥ 1, divides `num_heads`; fewer than `num_heads` is grouped-
      query attention.
    head_dim: ≥ 2, even (rotary embeddings turn pairs of features).
    mlp_width: ≥ 1, hidden features of the MLP.
    rotary: how positions turn queries and keys; None: they are learned, a
      table `[context, D]` is added to the embeddings.
    local_rotary: of windowed layers, of the same fraction; None: `rotary`.
    context: ≥ 1, positions there are, or None for no limit; required where
      they are learned. A token beyond it comes out as NaN.
    window: ≥ 1, how many positions back windowed layers see, their own
      counted; None: no layer is windowed.
    windowed: which of the layers are; None: all, where there is a window.
    norm: 'rms' x / √(mean x² + eps); 'layer' subtracts the mean first and adds
      a bias.
    norm_eps: > 0, added to the mean square.
    norm_offset: added to the learned scale of every norm (Gemma: 1).
    post_norms: a norm after the attention and after the MLP as well, before
      they are added to the residual stream.
    qk_norm: RMSNorm of every query and key over its features, before they turn.
    parallel: attention and MLP read the same residual stream (each its own
      norm), x + attention(norm(x)) + mlp(norm'(x)).
    activation: of the MLP; 'gelu' is exact, 'gelu_tanh' its approximation.
    gated: activation(x · gate) ∗ (x · up), else activation(x · up).
    qkv_bias, output_bias, mlp_bias: which projections have biases.
    query_scale: > 0, what queries are multiplied by; None: 1 / √head_dim.
    attention_softcap, logit_softcap: > 0; x becomes cap · tanh(x / cap); None:
      it stays.
    embedding_scale: > 0, what embeddings are multiplied by.
    tied_head: the vocabulary head reads the embedding table.
    head: which heads exist: `vocabulary` (statistics), `scalar` (rewards),
      `both`.
    matmul_dtype: operands of the weight matmuls, forward and backward; they
      accumulate in float32 and everything else is float32 either way.
    attention: how it is computed, see `attention.sight`; no way changes what
      comes out.
    remat: recompute each layer in the backward pass instead of storing it.
    scan_layers: one compiled layer scanned over parameters stacked on a first
      axis: compile time constant in depth, a few per cent slower when shallow.
    head_chunk: ≥ 1, the most logits (targets of all rows × V) that exist at a
      time; more of them are computed in pieces, and again in the backward pass.

  Raises:
    ValueError: a value outside its range.
  """

  vocab_size: int
  width: int
  depth: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_width: int
  rotary: Rotary | None = Rotary()
  local_rotary: Rotary | None = None
  context: int | None = None
  window: int | None = None
  windowed: tuple[bool, ...] | None = None
  norm: Literal['rms', 'layer'] = 'rms'
  norm_eps: float = 1e-6
  norm_offset: float = 0.0
  post_norms: bool = False
  qk_norm: bool = False
  parallel: bool = False
  activation: Literal['silu', 'gelu', 'gelu_tanh'] = 'silu'
  gated: bool = True
  qkv_bias: bool = False
  output_bias: bool = False
  mlp_bias: bool = False
  query_scale: float | None = None
  attention_softcap: float | None = None
  logit_softcap: float | None = None
  embedding_scale: float = 1.0
  tied_head: bool = False
  head: Literal['vocabulary', 'scalar', 'both'] = 'vocabulary'
  matmul_dtype: Literal['float32', 'bfloat16'] = 'float32'
  attention: Literal['auto', 'dense', 'blocks', 'splash', 'cudnn'] = 'auto'
  remat: bool = False
  scan_layers: bool = False
  head_chunk: int = 2**26

  def __post_init__(self):
    for name in SIZES:
      self._check(name, _is_size(getattr(self, name)), 'an integer ≥ 1')
    for name in OPTIONAL_SIZES:
      value = getattr(self, name)
      self._check(name, value is None or _is_size(value), 'an integer ≥ 1')
    for name, allowed in CHOICES.items():
      self._check(name, getattr(self, name) in allowed, f'one of {allowed}')
    for name in SWITCHES:
      is_switch = isinstance(getattr(self, name), bool)
      self._check(name, is_switch, 'True or False')
    for name in POSITIVE:
      value = getattr(self, name)
      self._check(name, value is None or 0 < value < math.inf, '> 0')
    self._check('norm_offset', math.isfinite(self.norm_offset), 'finite')
    self._check(
      'num_kv_heads',
      self.num_heads % self.num_kv_heads == 0,
      f'a divisor of num_heads = {self.num_heads}',
    )
    self._check(
      'head_dim', self.head_dim >= 2 and self.head_dim % 2 == 0, 'even and ≥ 2'
    )
    self._check(
      'tied_head',
      not self.tied_head or self.head != 'scalar',
      'False where there is no vocabulary head',
    )
    self._check_positions()

  def _check_positions(self):
    self._check(
      'context',
      self.context is not None or self.rotary is not None,
      'an integer ≥ 1 where positions are learned (rotary=None)',
    )
    for name in ('rotary', 'local_rotary'):
      rotary = getattr(self, name)
      turned = 2 if rotary is None else rotary.turned(self.head_dim)
      self._check(
        name,
        turned >= 2 and turned % 2 == 0,
        f'of a fraction that turns an even number of {self.head_dim} features',
      )
    self._check(
      'local_rotary',
      self.local_rotary is None
      or None not in (self.window, self.rotary)
      and self.local_rotary.fraction == self.rotary.fraction,
      'None where there is no window or no rotary, of the same fraction as it',
    )
    self._check(
      'windowed',
      self.windowed is None
      or self.window is not None
      and isinstance(self.windowed, tuple)
      and len(self.windowed) == self.depth
      and set(self.windowed) in ({True}, {True, False}),
      f'None, or {self.depth} of True and False where there is a window',
    )

  @property
  def windowed_layers(self) -> tuple[bool, ...]:
    """Which layers are windowed, one entry for each."""
    if self.windowed is not None:
      return self.windowed
    return (self.window is not None,) * self.depth

  def _check(self, name: str, holds: bool, wanted: str):
    if not holds:
      value = getattr(self, name)
      raise ValueError(f'{name} must be {wanted}, got {value!r}')


def _is_size(value: object) -> bool:
  return isinstance(value, int) and value is not True and value >= 1


def plain_config(
  vocab_size: int, *, width: int, depth: int, num_heads: int
) -> TransformerConfig:
  """As many heads for keys as for queries, and an MLP of twice the width.

  Args:
    vocab_size: V.
    width: D, a multiple of 2 · num_heads.
    depth: layers.
    num_heads: of width / num_heads features each.

  Raises:
    ValueError: a width that its heads do not share evenly.
  """
  if num_heads < 1 or width < 1 or width % (2 * num_heads):
    raise ValueError(
      f'width={width}: must be a multiple of 2 · num_heads = {2 * num_heads}'
    )
  return TransformerConfig(
    vocab_size=vocab_size,
    width=width,
    depth=depth,
    num_heads=num_heads,
    num_kv_heads=num_heads,
    head_dim=width // num_heads,
    mlp_width=2 * width,
  )
