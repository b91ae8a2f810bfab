"""Who competes: rates assumed, hyperparameters, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignment.losses.preference import AGGREGATES, METHODS, reads
from alignment.protocols.contestants import (
  Contestant,
  contestants_at,
  line_up,
  parse_hyper,
  takes_rate,
  value_at_zero,
)
from tests.protocols.arenas import LOSSES


def names(losses, flip_rate, aggregate='mean', entries=(), **assumptions):
  hyper = parse_hyper(entries, losses, aggregate, 0.3)
  found = contestants_at(flip_rate, losses, aggregate, hyper, **assumptions)
  return [contestant.name for contestant in found]


def test_a_loss_competes_at_the_injected_rate_and_beside_it():
  losses = ['dpo', 'rdpo', 'gce']
  assert names(losses, 0.2, misassumed=0.15) == [
    'dpo',
    'rdpo@0.2',
    'rdpo@0.05',
    'rdpo@0.35',
    'gce',
  ]
  assert names(['cdpo'], 0.2) == ['cdpo@0.2']


def test_rates_outside_the_range_are_left_out():
  assert names(['rdpo'], 0.0, misassumed=0.1) == ['rdpo@0', 'rdpo@0.1']
  assert names(['rdpo'], 0.4, misassumed=0.1) == ['rdpo@0.4', 'rdpo@0.3']


def test_rounding_does_not_make_two_of_one_rate():
  # 0.3 − 0.1 and 0.1 + 0.2 are not 0.2 and 0.3 in binary.
  assert names(['rdpo'], 0.3, misassumed=0.1) == [
    'rdpo@0.3',
    'rdpo@0.2',
    'rdpo@0.4',
  ]


def test_rates_given_replace_those_injected():
  found = names(['dpo', 'forward'], 0.4, assumed=(0.0, 0.25), misassumed=0.1)
  assert found == ['dpo', 'forward@0', 'forward@0.25']


def test_an_estimate_competes_beside_the_injected_rate():
  found = names(['dpo', 'rdpo'], 0.3, estimator='agreement')
  assert found == ['dpo', 'rdpo@agreement', 'rdpo@0.3']
  competing = line_up(
    {0.3: 0.34}, ['rdpo'], 'mean', [], beta=0.3, estimator='triplet'
  )
  assert [c.name for c in competing[0.3]] == [
    'dpo',
    'rdpo@triplet',
    'rdpo@0.34',
  ]


def test_ties_feed_losses_that_read_how_sure_a_label_is():
  assert 'soft_label' in parse_hyper(
    [], ['soft_label'], 'mean', 0.3, has_ties=True
  )
  (soft,) = contestants_at(0.2, ['soft_label'], 'mean', {'soft_label': ()})
  assert math.isclose(value_at_zero(soft), math.log(2), rel_tol=1e-6)


@pytest.mark.parametrize(
  ('losses', 'said', 'complaint'),
  [
    (
      ['ipo'],
      {'estimator': 'agreement'},
      '--estimate_flip_rate=agreement: none',
    ),
    (['ipo'], {'assumed': (0.1,)}, '--label_smoothing=0.1: none of --loss=ipo'),
    (
      ['rdpo'],
      {'estimator': 'agreement', 'assumed': (0.1,)},
      '--estimate_flip_rate=agreement: not used where --label_smoothing',
    ),
    (
      ['rdpo'],
      {'estimator': 'agreement', 'misassumed': 0.1},
      '--misassumed=0.1: not used where --estimate_flip_rate',
    ),
  ],
)
def test_one_way_to_say_what_is_assumed(losses, said, complaint):
  with pytest.raises(ValueError, match=complaint):
    line_up({0.2: 0.2}, losses, 'mean', [], beta=0.3, **said)


def test_a_loss_is_left_out_where_it_is_not_defined():
  assert names(['exo'], 0.0, misassumed=0.1) == ['exo@0.1']
  for assumptions in ({'misassumed': 0.0}, {'assumed': (0.1, 0.0)}):
    with pytest.raises(ValueError, match=r'exo@0: label_smoothing = 0 .*0\.5'):
      names(['exo'], 0.0, **assumptions)


@pytest.mark.parametrize('loss', LOSSES)
def test_every_loss_can_compete(loss):
  (contestant, *_) = contestants_at(
    0.2, [loss], 'mean', parse_hyper([], [loss], 'mean', 0.3)
  )
  assert contestant.assumed == (0.2 if takes_rate(loss) else None)
  assert dict(contestant.hyper) == {'beta': 0.3}


def test_hyperparameters_of_all_and_of_one():
  hyper = parse_hyper(
    ['simpo.beta=2', 'gamma=1.5'], ['simpo', 'holder_dpo'], 'mean', 0.3
  )
  assert dict(hyper['simpo']) == {'beta': 2.0, 'gamma': 1.5}
  assert dict(hyper['holder_dpo']) == {'beta': 0.3, 'gamma': 1.5}


@pytest.mark.parametrize(
  ('losses', 'entries', 'aggregate', 'complaint'),
  [
    (['nope'], [], 'mean', "--loss=nope: must be one of .*'dpo'"),
    (['dpo'], [], 'nope', "--aggregate=nope: must be one of .*'dr_dpo'"),
    (['dpo'], ['q=0.3'], 'mean', "--hyper=q=0.3: --loss=dpo does not use 'q'"),
    (['gce', 'dpo'], ['q=0.3'], 'mean', '--loss=dpo does not use'),
    (['gce'], ['dpo.q=0.3'], 'mean', "'dpo' is not among --loss=gce"),
    (['gce'], ['q'], 'mean', '--hyper=q: want name=number'),
    (['gce'], ['q=x'], 'mean', '--hyper=q=x: want name=number'),
    (['gce'], ['q=nan'], 'mean', '--hyper=q=nan: want name=number, finite'),
    (['gce'], ['q=1.5'], 'mean', r'gce: q = 1\.5 is outside \[0, 1\]'),
    (['gce'], ['beta=0.5'], 'mean', '--hyper=beta=0.5: .*--beta=0.5'),
    (['gce'], ['gce.beta=-1'], 'mean', 'gce: beta = -1 is outside'),
    (['dpo'], ['label_smoothing=0.1'], 'mean', "not use 'label_smoothing'"),
    (['rdpo'], ['label_smoothing=0.1'], 'mean', "not use 'label_smoothing'"),
    (['dpo'], ['beta_prime=1'], 'mean', "not use 'beta_prime'"),
    (['dpo'], ['beta_prime=0'], 'dr_dpo', 'beta_prime = 0 is outside'),
    (['ipo'], ['normalisation=1'], 'mean', "not use 'normalisation'"),
    (['soft_label'], [], 'mean', '--loss=soft_label: .*label_prob'),
    (['dpo_pro'], [], 'mean', '--loss=dpo_pro: .*label_prob'),
  ],
)
def test_refused(losses, entries, aggregate, complaint):
  with pytest.raises(ValueError, match=complaint):
    names(losses, 0.2, aggregate, entries)


def test_no_loss_that_pairs_can_feed_is_missing():
  assert set(METHODS) - set(LOSSES) == {
    name for name in METHODS if 'label_prob' in reads(name)
  }


@pytest.mark.parametrize(
  ('contestant', 'value'),
  [
    (Contestant('dpo', None, 'mean', (('beta', 0.3),)), math.log(2)),
    (Contestant('rdpo', 0.3, 'mean', (('beta', 0.3),)), math.log(2)),
    (Contestant('ipo', None, 'mean', (('beta', 0.25),)), 4.0),
    (Contestant('ripo', 0.2, 'mean', (('beta', 0.25),)), 4.0),
    (Contestant('gce', None, 'mean', (('q', 0.5),)), (1 - 0.5**0.5) / 0.5),
    (Contestant('exo', 0.1, 'mean'), 0.5 * math.log(0.25 / 0.09)),
    (Contestant('aot', 0.1, 'mean'), math.log(2)),
    # The hyperparameters of an aggregate are not the method's.
    (Contestant('dpo', None, 'dr_dpo', (('beta_prime', 2.0),)), math.log(2)),
  ],
)
def test_value_at_zero(contestant, value):
  np.testing.assert_allclose(value_at_zero(contestant), value, rtol=1e-6)


@pytest.mark.parametrize('loss', ['simpo', 'cpo', 'orpo', 'alphapo'])
def test_without_a_reference_there_is_no_value_at_zero(loss):
  assert math.isnan(value_at_zero(Contestant(loss, 0.1, 'mean')))


@pytest.mark.parametrize('aggregate', AGGREGATES)
def test_names_tell_contestants_apart(aggregate):
  found = names(['dpo', 'rdpo'], 0.2, aggregate, misassumed=0.1)
  suffix = '' if aggregate == 'mean' else f'+{aggregate}'
  assert found == [
    f'dpo{suffix}',
    *(f'rdpo{suffix}@{rate}' for rate in ('0.2', '0.1', '0.3')),
  ]
