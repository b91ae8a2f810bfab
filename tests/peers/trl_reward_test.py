"""The reward trainer of the installed TRL, run on random rewards beside ours.

Its loss sits inside a trainer method, which is called unbound on an object
that holds what it reads. Float64 on both sides, 1e-9 relative.
"""

import types
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import terms
from alignment.losses.reward import REWARD
from tests.peers.installed import peer

pytestmark = pytest.mark.peers

_RNG = np.random.default_rng(8)
REWARDS = _RNG.normal(scale=2.0, size=(2, 9))
MARGIN = _RNG.uniform(-1, 2, 9)


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def theirs(margin, coefficient):
  """(loss, its gradient `[2, B]`)."""
  torch = peer('torch')
  trainer = peer('trl.trainer.reward_trainer').RewardTrainer
  rewards = torch.tensor(REWARDS.reshape(-1, 1), requires_grad=True)
  model = types.SimpleNamespace(training=True)
  gather = types.SimpleNamespace(
    gather=lambda x: x, gather_for_metrics=lambda x: x
  )
  host = types.SimpleNamespace(
    model=model,
    args=types.SimpleNamespace(center_rewards_coefficient=coefficient),
    accelerator=gather,
    _metrics={'train': defaultdict(list)},
    _total_train_tokens=0,
    _tp_size=1,
  )
  inputs = {'attention_mask': torch.ones(18, 3)}
  if margin is not None:
    inputs['margin'] = torch.tensor(margin)
  loss = trainer.compute_loss(
    host, lambda **_: types.SimpleNamespace(logits=rewards), inputs
  )
  loss.backward()
  return loss.item(), rewards.grad.numpy().reshape(2, 9)


@pytest.mark.parametrize('coefficient', [None, 0.03])
@pytest.mark.parametrize('margin', [None, MARGIN], ids=['plain', 'margin'])
def test_bradley_terry_with_margin_and_centring(margin, coefficient):
  value, gradient = theirs(margin, coefficient)

  def ours(rewards):
    losses = REWARD['bradley_terry'](
      *rewards, margin=0.0 if margin is None else margin
    )
    term = terms.centring(*rewards, jnp.ones(9), coefficient or 0.0)
    return jnp.mean(losses) + term.value()

  found, pull = jax.value_and_grad(ours)(REWARDS)
  np.testing.assert_allclose(found, value, rtol=1e-9)
  np.testing.assert_allclose(pull, gradient, rtol=1e-9, atol=1e-12)
