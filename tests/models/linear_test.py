"""The linear fit against Newton's method, weights as copies, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse, special

from alignment.losses import links
from alignment.models.linear import fit_linear


def _signed_logistic(scores, sign):
  return links.logistic(sign * scores)


def _cross_entropy(scores, label):
  return -jnp.take_along_axis(
    jax.nn.log_softmax(scores), label[:, None], axis=1
  )[:, 0]


def _problem(rows=300, columns=7):
  rng = np.random.default_rng(4)
  features = rng.normal(size=(rows, columns))
  truth = rng.normal(size=columns)
  sign = np.where(rng.random(rows) < special.expit(features @ truth), 1.0, -1.0)
  return features, sign


def test_fit_is_the_root_that_newton_finds():
  features, sign = _problem()
  l2, weights = 0.03, np.zeros(features.shape[1])
  for _ in range(30):
    pull = -sign * special.expit(-sign * (features @ weights))
    gradient = features.T @ pull / len(sign) + l2 * weights
    curvature = special.expit(features @ weights)
    curvature = curvature * (1 - curvature) / len(sign)
    hessian = (features * curvature[:, None]).T @ features
    hessian += l2 * np.eye(len(weights))
    weights = weights - np.linalg.solve(hessian, gradient)
  fit = fit_linear(features, _signed_logistic, (sign,), l2=l2)
  assert fit.converged
  # L-BFGS stops at a gradient of 1e-6, over a curvature of at least l2.
  np.testing.assert_allclose(fit.weights, weights, atol=1e-6 / l2)
  np.testing.assert_allclose(fit.scores, features @ fit.weights)


def test_sparse_features_and_integer_weights_as_copies():
  features, sign = _problem()
  times = np.random.default_rng(1).integers(0, 4, len(sign))
  copies = np.repeat(np.arange(len(sign)), times)
  weighted = fit_linear(
    sparse.csr_array(features),
    _signed_logistic,
    (sign,),
    l2=0.1,
    weights=times,
  )
  repeated = fit_linear(
    features[copies], _signed_logistic, (sign[copies],), l2=0.1
  )
  np.testing.assert_allclose(weighted.weights, repeated.weights, atol=1e-5)


def test_two_outputs_give_the_binary_model():
  features, sign = _problem()
  binary = fit_linear(features, _signed_logistic, (sign,), l2=0.05)
  label = (sign > 0).astype(np.int32)
  # ‖(w/2, −w/2)‖² is ‖w‖²/2.
  double = fit_linear(features, _cross_entropy, (label,), l2=0.1, num_outputs=2)
  np.testing.assert_allclose(
    double.weights[:, 1] - double.weights[:, 0], binary.weights, atol=1e-4
  )


def test_bad_arguments_are_refused():
  features, sign = _problem(20)
  with pytest.raises(ValueError, match='l2=0'):
    fit_linear(features, _signed_logistic, (sign,), l2=0)
  with pytest.raises(ValueError, match='weights of shape'):
    fit_linear(features, _signed_logistic, (sign,), l2=1, weights=-np.ones(20))
  with pytest.raises(ValueError, match='not finite'):
    fit_linear(features, _signed_logistic, (np.nan * sign,), l2=1)
