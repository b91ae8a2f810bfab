"""One random, asymmetric batch and setting for the tests of the methods."""

import numpy as np

from alignment.losses.preference import hyperparameters, reads

_RNG = np.random.default_rng(7)
BATCH = {
  'policy_chosen_logps': -_RNG.uniform(2, 60, 9),
  'policy_rejected_logps': -_RNG.uniform(2, 60, 9),
  'reference_chosen_logps': -_RNG.uniform(2, 60, 9),
  'reference_rejected_logps': -_RNG.uniform(2, 60, 9),
  'chosen_lengths': _RNG.integers(1, 30, 9),
  'rejected_lengths': _RNG.integers(1, 30, 9),
  'label_prob': _RNG.uniform(0, 1, 9),
}
HYPER = {
  'beta': 0.17,
  'label_smoothing': 0.12,
  'tau': 0.3,
  'delta': 0.4,
  'q': 0.6,
  'threshold': 0.35,
  'forward_weight': 0.7,
  'reverse_weight': 1.2,
  'log_zero': -3.0,
  'alpha': 0.2,
  'gamma': 0.6,
  'rho': 0.3,
  'bound': 4.0,
}


def inputs(name, batch=BATCH):
  return {key: batch[key] for key in reads(name) if key in batch}


def hyper(name):
  return {k: v for k, v in HYPER.items() if k in hyperparameters(name)}
