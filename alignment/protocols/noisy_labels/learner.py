"""A classifier that can memorise its labels, and the steps that train it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from alignment.losses.classification import CLASSIFICATION
from alignment.noise.detection import elr
from alignment.noise.detection.co_teaching import peer_weights
from alignment.noise.detection.small_loss import smallest
from alignment.types import Array, PyTree


class State(NamedTuple):
  """Of one or two learners.

  Attributes:
    params, opt_state: one entry per learner.
    table: `[B, C]` running targets of ELR, by row.
  """

  params: tuple[PyTree, ...]
  opt_state: tuple[PyTree, ...]
  table: Array


class Data(NamedTuple):
  """What is learnt.

  Attributes:
    features: `[B, F]`.
    targets: per learner `[B]` labels or `[B, C]` probabilities.
    weights: `[B]` ≥ 0.
  """

  features: Array
  targets: tuple[Array, ...]
  weights: Array


def init(
  key: Array, num_features: int, width: int, num_classes: int
) -> dict[str, Array]:
  """One hidden layer of `width` rectified units; width 0 is a linear model.

  The last layer starts at 0, so that every class starts at 1/C.
  """
  inputs = width or num_features
  params = {
    'out': jnp.zeros((inputs, num_classes)),
    'out_bias': jnp.zeros(num_classes),
  }
  if width:
    scale = (2.0 / num_features) ** 0.5
    params['hidden'] = scale * jax.random.normal(key, (num_features, width))
    params['hidden_bias'] = jnp.zeros(width)
  return params


def start(
  keys: tuple[Array, ...], features: Array, width: int, num_classes: int
) -> State:
  """Fresh learners, one per key."""
  size, num_features = features.shape
  params = tuple(init(key, num_features, width, num_classes) for key in keys)
  optimiser = optax.adam(1.0)
  return State(
    params,
    tuple(optimiser.init(p) for p in params),
    elr.start(size, num_classes),
  )


@jax.jit
def logits(params: Mapping[str, Array], features: Array) -> Array:
  """`[B, C]`."""
  if 'hidden' in params:
    features = jax.nn.relu(features @ params['hidden'] + params['hidden_bias'])
  return features @ params['out'] + params['out_bias']


@functools.partial(jax.jit, static_argnames=('loss', 'scheme'))
def advance(
  state: State,
  data: Data,
  orders: Array,
  share: Array,
  learning_rate: Array,
  keywords: Mapping[str, Any],
  *,
  loss: str,
  scheme: str,
) -> State:
  """Trains on the batches of `orders`, one Adam step each.

    gradient = ∇ Σ w·loss / Σ w over the batch, w = weights of what is chosen

  Args:
    state: where it stands.
    data: what is learnt.
    orders: `[L, steps, batch]` rows, per learner.
    share: kept of each batch by 'small_loss' and 'co_teaching'.
    learning_rate: Adam's.
    keywords: of the loss, one for all rows.
    loss: key of `CLASSIFICATION`.
    scheme: as in `Method`.
  """
  optimiser = optax.adam(1.0)

  def step(state: State, rows: Array) -> tuple[State, None]:
    params, opt_state, table = [], [], state.table
    for k, before in enumerate(state.params):
      at = rows[k]
      features, target = data.features[at], data.targets[k][at]
      if loss == 'elr':
        probs = jax.nn.softmax(logits(before, features))
        table = elr.update(table, at, probs, data.weights[at])
      peer = state.params[-1 - k]
      chosen = _chosen(
        scheme, before, peer, features, target, data.weights[at], share
      )

      gradient = jax.grad(_value)(
        before, loss, features, target, chosen, table[at], keywords
      )
      updates, after = optimiser.update(gradient, state.opt_state[k])
      scaled = jax.tree.map(lambda u: learning_rate * u, updates)
      params.append(optax.apply_updates(before, scaled))
      opt_state.append(after)
    return State(tuple(params), tuple(opt_state), table), None

  return jax.lax.scan(step, state, jnp.swapaxes(orders, 0, 1))[0]


def _value(params, loss, features, target, chosen, running_target, keywords):
  """Σ w·loss / Σ w of a batch."""
  scores = logits(params, features)
  extra = _extra(loss, scores, target, running_target)
  losses = CLASSIFICATION[loss](scores, target, **keywords, **extra)
  return jnp.sum(chosen * losses) / jnp.maximum(jnp.sum(chosen), 1e-9)


def _extra(loss, scores, target, running_target) -> dict[str, Array]:
  """What a loss reads besides scores and target."""
  if loss == 'elr':
    return {'running_target': running_target}
  if loss == 'peer':
    # The order is random: neighbours are strangers.
    return {
      'peer_logits': jnp.roll(scores, 1, axis=0),
      'peer_label': jnp.roll(target, 2, axis=0),
    }
  return {}


def _chosen(scheme, params, peer, features, target, weights, share) -> Array:
  """Weights of a batch, 0 for what is left out."""
  if scheme not in ('small_loss', 'co_teaching'):
    return weights
  own, other = (
    CLASSIFICATION['cross_entropy'](logits(p, features), target)
    for p in (params, peer)
  )
  if scheme == 'small_loss':
    return smallest(own, weights, share)
  return peer_weights(own, other, weights, share)[0]
