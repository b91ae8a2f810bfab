"""The reference: a policy that does not move, computed once or every step."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from alignment.losses.preference import reads
from alignment.types import Array, Batch, Frozen, Numbers, PyTree

REFERENCES = ('precomputed', 'in_step', 'none')


def keep_batch(
  params: PyTree,
  frozen: Frozen,
  extra: PyTree,
  batch: Batch,
  key: Array,
  step: Array,
) -> tuple[Batch, PyTree]:
  """The `prepare` of an objective that needs nothing prepared."""
  del params, frozen, key, step
  return batch, extra


def reference_in_step(numbers: Callable[..., Numbers]) -> Callable:
  """A `prepare` that fills `reference_logps` from `frozen.models['reference']`.

  Args:
    numbers: (params, batch, key) -> Numbers of the reference; its `ld_logps`
      are taken where it gives them, else its `logps`.
  """

  def prepare(
    params: PyTree,
    frozen: Frozen,
    extra: PyTree,
    batch: Batch,
    key: Array,
    step: Array,
  ) -> tuple[Batch, PyTree]:
    del params, step
    if 'reference' not in frozen.models:
      raise ValueError(
        "reference = 'in_step' needs frozen.models['reference'], got "
        f'{sorted(frozen.models)}'
      )
    found = numbers(frozen.models['reference'], batch, key)
    logps = found.get('ld_logps', found['logps'])
    completions = batch.completions.replace(
      reference_logps=logps.astype(jnp.float32)
    )
    return batch.replace(completions=completions), extra

  return prepare


def check_reference(method: str, reference: str | None) -> str:
  """How a method gets its reference; None chooses.

  Raises:
    ValueError: an unknown way, or a reference for a method that takes none.
  """
  takes = 'reference_chosen_logps' in reads(method)
  if reference is None:
    return 'precomputed' if takes else 'none'
  if reference not in REFERENCES:
    raise ValueError(f'--reference={reference}: must be one of {REFERENCES}')
  if reference != 'none' and not takes:
    raise ValueError(
      f'--reference={reference}: --loss={method} takes no reference'
    )
  return reference
