"""Losses of unpaired data of the installed TRL, on random numbers beside ours.

`KTOTrainer._compute_loss` is called unbound, on an object that holds what it
reads. Both sides run in float64 and agree to 1e-9 relative.
"""

import collections
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import unpaired
from alignment.losses.pointwise import unpaired_term
from tests.peers.installed import peer

pytestmark = pytest.mark.peers

SIZE, LONGEST = 9, 6
RNG = np.random.default_rng(77)
LENGTHS = RNG.integers(1, LONGEST + 1, SIZE)
MASK = np.arange(LONGEST) < LENGTHS[:, None]
POLICY = -RNG.gamma(1.5, 1.0, (SIZE, LONGEST)) * MASK
REFERENCE = -1.5 * LENGTHS + RNG.normal(0, 1.5, SIZE)
APART = -RNG.uniform(5, 40, SIZE)
LABEL = RNG.random(SIZE) < 0.5


@pytest.fixture(autouse=True)
def _float64():
  torch = peer('torch')
  before = torch.get_default_dtype()
  torch.set_default_dtype(torch.float64)
  with jax.enable_x64(True):
    yield
  torch.set_default_dtype(before)


def theirs(loss_type, beta, desirable, undesirable, shift):
  """TRL's batch loss, its gradient by tokens `[B, T]`, and the KL it logs."""
  torch = peer('torch')
  policy = torch.tensor(POLICY, requires_grad=True)
  plain = torch.zeros(POLICY.shape)
  itself = types.SimpleNamespace(device=torch.device('cpu'))
  itself.gather_for_metrics = lambda x: x
  trainer = types.SimpleNamespace(
    loss_type=loss_type,
    beta=beta,
    desirable_weight=desirable,
    undesirable_weight=undesirable,
    calculate_KL=loss_type == 'kto',
    precompute_ref_logps=True,
    aux_loss_enabled=False,
    accelerator=itself,
    _compute_kl_logps=lambda *_: torch.tensor(APART + shift),
    _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
    _total_train_tokens=0,
    _tp_size=1,
  )

  def model(**_):
    return types.SimpleNamespace(
      log_probs=policy, entropy=plain, mean_logits=plain
    )

  model.training = False
  trainer.model = model
  # One token of prompt; what is predicted starts right after it.
  mask = np.pad(MASK, ((0, 0), (1, 0)))
  inputs = {
    'input_ids': torch.zeros(mask.shape, dtype=torch.long),
    'attention_mask': torch.ones(mask.shape, dtype=torch.long),
    'completion_mask': torch.tensor(mask, dtype=torch.long),
    'label': torch.tensor(LABEL),
    'ref_logps': torch.tensor(REFERENCE),
    'ref_KL_logps': torch.tensor(APART),
  }
  kto = peer('trl').KTOTrainer
  loss = kto._compute_loss(trainer, model, inputs, return_outputs=False)
  loss.backward()
  (logged,) = trainer._metrics.values()
  return loss.item(), policy.grad.numpy(), logged['kl'][0]


@pytest.mark.parametrize('shift', [2.3, -1.0])
@pytest.mark.parametrize(
  'name, beta, desirable, undesirable',
  [
    ('kto', 0.1, 1.0, 1.0),
    ('kto', 0.7, 0.6, 1.4),
    ('apo_zero_unpaired', 0.7, 1.0, 1.0),
  ],
)
def test_kto_trainer(name, beta, desirable, undesirable, shift):
  value, gradient, kl = theirs(name, beta, desirable, undesirable, shift)
  keywords = {}
  if name == 'kto':
    point = unpaired.reference_point(APART + shift, APART, np.ones(SIZE))
    np.testing.assert_allclose(point, kl, rtol=1e-9)
    assert (kl > 0) == (shift > 0)
    keywords = {
      'reference_point': point,
      'desirable_weight': desirable,
      'undesirable_weight': undesirable,
    }

  def loss(tokens):
    return unpaired_term(
      name,
      jnp.sum(tokens * MASK, axis=1),
      REFERENCE,
      LABEL,
      np.ones(SIZE),
      beta=beta,
      **keywords,
    ).value()

  mine, slope = jax.value_and_grad(loss)(jnp.asarray(POLICY))
  np.testing.assert_allclose(mine, value, rtol=1e-9)
  # TRL's gradient reaches into the padding too.
  np.testing.assert_allclose(slope, gradient * MASK, rtol=1e-9, atol=1e-15)
  assert np.abs(gradient).max() > 1e-4
