"""Process reward models: a label for every step of a solution.

Shape letters: B solutions, S steps of a solution, T tokens, V vocabulary, C
classes of a step (wrong, right, …).
"""

from __future__ import annotations

import jax.numpy as jnp

from alignment.losses.pointwise import classification_term
from alignment.types import Array, Term


def step_logits(
  token_logits: Array, positions: Array, class_tokens: Array
) -> Array:
  """The logits of the class tokens where a step is judged.

  Cross-entropy on them is that of the next token, restricted to the tokens that
  name a class. Class c is class_tokens[c].

  Args:
    token_logits: `[B, T, V]`; entry t predicts token t + 1.
    positions: `[B, S]` int in [0, T), where each step is judged: the position
      whose prediction is the label. Padding may point anywhere.
    class_tokens: `[C]` int in [0, V), all different.

  Returns:
    `[B, S, C]`.
  """
  at_steps = jnp.take_along_axis(token_logits, positions[:, :, None], axis=1)
  return jnp.take(at_steps, jnp.asarray(class_tokens), axis=-1)


def step_term(
  name: str,
  logits: Array,
  label: Array,
  weights: Array,
  coefficient: Array | float = 1.0,
  **keywords,
) -> Term:
  """Any classification loss over the steps of the global batch.

    value = Σ weights·coefficient·loss / Σ weights

  A step counts alike whether its solution has many steps or few; for each
  solution to count alike, divide its weights by its number of steps.

  Args:
    name: key of `CLASSIFICATION`.
    logits: `[B, S, C]`.
    label: `[B, S]` int, or `[B, S, C]` probabilities (soft labels).
    weights: `[B, S]` ≥ 0, multiplicity; 0 for padding and for steps without a
      label, where logits and label are ignored.
    coefficient: scalar or `[B, S]`, multiplies the loss alone.
    **keywords: of the loss; an array of one entry per step leads with `[B, S]`,
      a transition is `[C, C]` or `[B, S, C, C]`.

  Raises:
    ValueError: name is unknown, or what the loss refuses.
  """
  size, steps, classes = logits.shape
  rows = size * steps

  def flat(value, name=''):
    is_per_step = jnp.shape(value)[:2] == (size, steps)
    if name == 'transition':
      is_per_step = jnp.ndim(value) == 4
    if not is_per_step:
      return value
    return jnp.reshape(value, (rows, *jnp.shape(value)[2:]))

  return classification_term(
    name,
    jnp.reshape(logits, (rows, classes)),
    flat(label),
    flat(weights),
    flat(coefficient),
    **{key: flat(value, key) for key, value in keywords.items()},
  )
