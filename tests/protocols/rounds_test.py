"""Jobs of a round: labels, controls, coincidences, and what they cost."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses.preference import METHODS, reads
from alignment.models.huggingface.card import Provenance
from alignment.protocols import bakeoff, labelling, rounds
from alignment.protocols.bakeoff import Grid
from alignment.protocols.contestants import Contestant, line_up
from alignment.protocols.labelling import Noise
from alignment.training.checkpoints import Checkpoints
from alignment.training.writers import combined_writer
from tests.protocols.arenas import STEPS, toy_arena

ARENA = toy_arena()
GRID = Grid((0.01, 0.03), (3, STEPS))
COMPETING = line_up(
  {0.0: 0.0, 0.2: 0.2, 0.4: 0.4},
  ['dpo', 'rdpo', 'forward'],
  'mean',
  [],
  beta=0.5,
  misassumed=0.1,
)
BASELINE = COMPETING[0.0][0]


def flips(rate, arena=ARENA, noise='exact_count'):
  return labelling.noisy_labels(arena, Noise(noise), rate)


def jobs(noise='exact_count'):
  return list(rounds.jobs_of(ARENA, COMPETING, BASELINE, GRID, Noise(noise)))


@pytest.mark.parametrize('noise', ['exact_count', 'symmetric'])
def test_flips_are_coupled_across_rates(noise):
  low, high = flips(0.2, noise=noise), flips(0.4, noise=noise)
  for few, many in zip(low[:2], high[:2], strict=True):
    assert 0 < few.sum() < many.sum() and not np.any(few & ~many)
  assert not flips(0.0, noise=noise).train_flipped.any()


def test_the_exact_count_is_exact():
  labels = flips(0.4)
  assert labels.train_flipped.sum() == 0.4 * len(ARENA.train.pairs)
  assert labels.validation_flipped.sum() == 0.4 * len(ARENA.validation.pairs)


def test_training_and_validation_flips_are_independent():
  """Equal draws would flip the same places; √n spread of the overlap."""
  arena = toy_arena(sizes=(1000, 1000, 2), steps=1)
  labels = flips(0.5, arena, 'symmetric')
  overlap = (labels.train_flipped == labels.validation_flipped).mean()
  assert abs(overlap - 0.5) < 5 * 0.5 / 1000**0.5


def test_seeds_redraw_the_flips():
  other = flips(0.4, toy_arena(1))
  assert (other.train_flipped != flips(0.4).train_flipped).any()


def test_noise_comes_on_top_of_the_labels_at_hand():
  arena = toy_arena()
  arena.train.pairs.observed_flip[:7] = True
  assert flips(0.0, arena).train_flipped.nonzero()[0].tolist() == list(range(7))
  with_both = flips(0.4, arena).train_flipped
  np.testing.assert_array_equal(
    with_both ^ arena.train.pairs.observed_flip, flips(0.4).train_flipped
  )


def test_the_jobs_of_a_seed():
  found = [(job.flip_rate, job.role, job.contestant.name) for job in jobs()]
  contestants = [(r, c) for r, _, c in found if _ == 'contestant']
  assert contestants == [(r, c.name) for r in COMPETING for c in COMPETING[r]]
  assert [f for f in found if f[1] != 'contestant'] == [
    (0.2, 'unflipped', 'dpo'),
    (0.2, 'clean', 'dpo'),
    (0.4, 'unflipped', 'dpo'),
    (0.4, 'clean', 'dpo'),
    (0.5, 'leak', 'dpo'),
    (0.5, 'leak complement', 'dpo'),
  ]


def test_the_labels_of_the_controls():
  named = {(job.flip_rate, job.role): job for job in jobs()}
  noisy = flips(0.4)
  alone = named[0.4, 'unflipped'].labels
  np.testing.assert_array_equal(alone.train_weight, ~noisy.train_flipped)
  np.testing.assert_array_equal(
    alone.validation_flipped, noisy.validation_flipped
  )
  clean = named[0.4, 'clean'].labels
  assert not clean.train_flipped.any() and not clean.validation_flipped.any()
  leak, swapped = (
    named[0.5, role].labels for role in ('leak', 'leak complement')
  )
  for one, other in zip(leak[:2], swapped[:2], strict=True):
    assert one.sum() * 2 == len(one) and (one ^ other).all()
  assert named[0.5, 'leak'].grid == Grid((0.01,), (STEPS,))


@pytest.mark.parametrize(('corrected', 'plain'), rounds.AT_ZERO.items())
def test_corrections_that_assume_no_flips_are_their_loss(corrected, plain):
  rng = np.random.default_rng(1)
  logps = [jnp.asarray(rng.normal(-9, 4, 50), jnp.float32) for _ in range(4)]
  lengths = {
    name: jnp.asarray(rng.integers(1, 9, 50))
    for name in ('chosen_lengths', 'rejected_lengths')
    if name in reads(plain)
  }
  one = METHODS[corrected](*logps, beta=0.7, label_smoothing=0.0, **lengths)
  other = METHODS[plain](*logps, beta=0.7, **lengths)
  # Float32 rounding of two ways to write one number.
  np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-6)


def test_fingerprints_tell_apart_what_differs():
  prints = {}
  for job in jobs():
    key = rounds.fingerprint(ARENA, job)
    prints.setdefault(key, []).append((job.flip_rate, job.name))
  shared = [names for names in prints.values() if len(names) > 1]
  assert shared == [
    [
      (0.0, 'dpo'),
      (0.0, 'rdpo@0'),
      (0.0, 'forward@0'),
      (0.2, 'dpo (clean)'),
      (0.4, 'dpo (clean)'),
    ]
  ]
  job = jobs()[0]
  key = rounds.fingerprint(ARENA, job)
  assert key != rounds.fingerprint(toy_arena(1), job)
  for changed in (
    job._replace(grid=Grid((0.01,), GRID.stops)),
    job._replace(contestant=Contestant('dpo', hyper=(('beta', 0.4),))),
    job._replace(labels=labelling.complement(job.labels)),
  ):
    assert rounds.fingerprint(ARENA, changed) != key


@pytest.mark.parametrize('threads', [1, 2])
def test_cells_are_trained_once_and_resumed(tmp_path, threads):
  done = []
  carrying = rounds.Carrying(
    directory=tmp_path,
    threads=threads,
    mesh=None,
    save_interval=0,
    writer=combined_writer([]),
    log_interval=0,
    should_stop=lambda step: False,
    on_done=lambda key, row, count, total: done.append((count, total)),
  )
  arenas = [ARENA, toy_arena(1)]
  competing = {rate: COMPETING[rate][:2] for rate in (0.0, 0.4)}

  def train():
    return rounds.train_cells(
      arenas,
      competing,
      BASELINE,
      GRID,
      labelling.EXACT_FLIPS,
      carrying,
      with_pairs=False,
    )

  cells = train()
  assert len(cells) == 2 * (4 + 2 + 2)
  # dpo and rdpo@0 on clean labels and dpo (clean) are one.
  assert done[-1] == (12, 12) and len(done) == 12
  rounds.write_cells(tmp_path, cells)
  text = (tmp_path / 'eval' / 'cells.jsonl').read_text()
  assert [json.loads(line) for line in text.splitlines()] == cells
  assert train() == cells and len(done) == 12


def test_openings_are_named_by_loss():
  found = rounds.openings(COMPETING, ARENA, None, 2)
  assert list(found) == ['dpo', 'rdpo', 'forward']
  for measured, exact in found.values():
    np.testing.assert_allclose([measured, exact], np.log(2), rtol=1e-5)


def test_selected_policies_are_kept_on_request(tmp_path):
  job = jobs()[0]
  carrying = rounds.Carrying(
    directory=tmp_path,
    threads=1,
    mesh=None,
    save_interval=0,
    writer=combined_writer([]),
    log_interval=0,
    should_stop=lambda step: False,
    on_done=lambda *_: None,
    provenance=Provenance(
      data='made up', noise='exact_count', loss='', seeds=()
    ),
  )
  [cell] = rounds.train_jobs([(ARENA, job)], carrying, with_pairs=False)
  [folder] = (tmp_path / 'policies').iterdir()
  target = {'params': ARENA.start}
  _, tree, known = Checkpoints(folder).restore(target)
  said = known['provenance']
  step = cell['selected']['stop']['step']
  assert said['results']['learning rate, step selected'].endswith(f', {step}')
  assert said['noise'].startswith('exact_count; seed ')
  assert said['data'] == 'made up' and said['seeds'] == [ARENA.seed]
  margin = bakeoff.margins(job.contestant, ARENA, ARENA.test, tree['params'])
  measured = ARENA.yardstick(tree['params'], margin)
  assert measured.summary == cell['selected']['summary']
