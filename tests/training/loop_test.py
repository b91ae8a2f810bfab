"""The loop: what is read when, what compiles, what stops it."""

import concurrent.futures
import math
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.roles.learner import sft_objective
from alignment.training.checkpoints import Checkpoints
from alignment.training.loop import train
from alignment.training.optimizer import make_optimizer
from alignment.training.pmap import pmap_step, replicate
from alignment.training.preemption import Preempted
from alignment.training.refusals import NonFiniteError
from alignment.training.step import init_state
from alignment.training.writers import Writer
from alignment.types import Frozen, TrainState, Weighted
from tests.roles.worlds import MODEL, batch_of, unit_pairs
from tests.training.toys import KEY, batches, fresh, toy_step


def _recorder():
  rows, rewinds = [], []
  writer = Writer(
    lambda step, row: rows.append((step, dict(row))),
    lambda step, tags: rewinds.append((step, dict(tags))),
    lambda: None,
  )
  return writer, rows, rewinds


@pytest.fixture(autouse=True)
def no_warnings():
  with warnings.catch_warnings():
    warnings.simplefilter('error', RuntimeWarning)
    yield


def test_rows_are_weighted_means_over_their_interval():
  writer, rows, _ = _recorder()
  step = jax.jit(toy_step)
  train(
    step,
    fresh(),
    Frozen(),
    batches,
    num_steps=7,
    key=KEY,
    writer=writer,
    log_interval=3,
  )
  assert [s for s, _ in rows] == [1, 3, 6, 7]
  state, seen = fresh(), []
  for batch, _ in zip(batches(0), range(7), strict=False):
    state, metrics = step(state, Frozen(), batch, KEY)
    seen.append(metrics)
  spans = {1: seen[:1], 3: seen[1:3], 6: seen[3:6], 7: seen[6:]}
  for s, row in rows:
    total = sum(float(m['loss'].total) for m in spans[s])
    weight = sum(float(m['loss'].weight) for m in spans[s])
    assert row['loss'] == pytest.approx(total / weight, rel=1e-6)
    norm = np.mean([float(m['grad_norm']) for m in spans[s]])
    assert row['grad_norm'] == pytest.approx(norm, rel=1e-6)
    assert row['nonfinite'] == 0
    assert 'nonfinite_index' not in row


def test_throughput_leaves_out_compilation_and_callbacks():
  writer, rows, _ = _recorder()

  def wait(step, state):
    threading.Event().wait(1.0)

  train(
    jax.jit(lambda *arguments: toy_step(*arguments)),
    fresh(),
    Frozen(),
    batches,
    num_steps=40,
    key=KEY,
    writer=writer,
    log_interval=20,
    stops={10: wait},
  )
  first, (_, second), (_, third) = rows
  assert first[0] == 1 and first[1]['perf/compile_seconds'] > 0
  assert 'perf/step_seconds' not in first[1]
  # 19 toy steps take milliseconds; the callback alone a second.
  assert second['perf/step_seconds'] * 19 < 0.9
  assert 'perf/compile_seconds' not in third
  # 12 tokens of which 3 are padding, in every toy batch.
  tokens = second['perf/tokens_per_second'] * second['perf/step_seconds']
  assert tokens == pytest.approx(9)
  assert third['perf/eta_seconds'] == 0 < second['perf/eta_seconds']


class _Flight:
  """A scalar of a step that has not run until it is told so."""

  def __init__(self, log, step, value):
    self.log, self.step, self.value, self.ready = log, step, value, False
    self.shape, self.dtype, self.ndim = (), np.dtype(np.float32), 0

  def copy_to_host_async(self):
    pass

  def is_ready(self):
    return self.ready

  def block_until_ready(self):
    self.log.append(('wait', self.step))
    return self

  def __array__(self, dtype=None, copy=None):
    self.log.append(('read', self.step))
    return np.asarray(self.value, dtype)


def test_nothing_is_read_before_the_next_step_is_dispatched():
  log = []

  def step(state, frozen, batch, key):
    done = int(state.step) + 1
    log.append(('dispatch', done))
    metrics = {
      'loss': _Flight(log, done, 0.5),
      'nonfinite': _Flight(log, done, False),
    }
    return state.replace(step=np.int32(done)), metrics

  writer, rows, _ = _recorder()
  state = TrainState(np.int32(0), {}, (), ())
  train(
    step,
    state,
    Frozen(),
    batches,
    num_steps=12,
    key=KEY,
    writer=writer,
    log_interval=5,
  )
  events = []  # without repetitions
  for event in log:
    if event not in events:
      events.append(event)
  # The first step is waited for (it starts the clock), then nothing is until
  # step 6 is on its way.
  at = events.index(('dispatch', 6))
  assert [e for e in events[:at] if e[0] != 'dispatch'] == [
    ('wait', 1),
    ('read', 1),
  ]
  for done in (2, 3, 4, 5):
    assert at < events.index(('read', done)) < events.index(('dispatch', 7))
  assert events.index(('read', 6)) > events.index(('dispatch', 11))
  assert [s for s, _ in rows] == [1, 5, 10, 12]


def test_without_a_writer_no_metric_is_read_until_the_end():
  log = []

  def step(state, frozen, batch, key):
    done = int(state.step) + 1
    log.append(('dispatch', done))
    flag = _Flight(log, done, False)
    return state.replace(step=np.int32(done)), {'nonfinite': flag}

  state = TrainState(np.int32(0), {}, (), ())
  train(step, state, Frozen(), batches, num_steps=9, key=KEY)
  assert log[:9] == [('dispatch', i) for i in range(1, 10)]


def _poisoned(*steps):
  def make(start):
    for i, batch in enumerate(batches(start), start + 1):
      batch.x[1] = math.nan if i in steps else batch.x[1]
      yield batch

  return make


def test_a_refused_step_is_named_and_left_out_of_the_means():
  writer, rows, _ = _recorder()
  with pytest.warns(RuntimeWarning, match='step 4: .*refused; examples with.*'):
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      train(
        jax.jit(toy_step),
        fresh(),
        Frozen(),
        _poisoned(4),
        num_steps=10,
        key=KEY,
        writer=writer,
        log_interval=5,
      )
    (warning,) = caught
    warnings.warn(warning.message)
  assert 'index 31' in str(warning.message)  # 10 · (step − 1) + row
  by_step = dict(rows)
  assert by_step[5]['nonfinite'] == 1 and by_step[10]['nonfinite'] == 0
  assert math.isfinite(by_step[5]['loss'])


def test_the_run_stops_after_so_many_refused_steps():
  seen = []

  def counted(start):
    for i, batch in enumerate(_poisoned(2, 3, 5)(start)):
      seen.append(i)
      yield batch

  with pytest.raises(
    NonFiniteError, match=r'step 5.*index 41\..*steps 2, 3, 5'
  ):
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      train(
        jax.jit(toy_step),
        fresh(),
        Frozen(),
        counted,
        num_steps=10_000,
        key=KEY,
        max_nonfinite=3,
      )
  assert len(seen) < 200  # not at the end: soon after the step


def test_stops_are_called_with_their_step_and_state():
  calls = []
  stop = lambda step, state: calls.append((step, int(state.step)))  # noqa: E731
  stops = dict.fromkeys((0, 2, 5), stop)
  train(
    jax.jit(toy_step),
    fresh(),
    Frozen(),
    batches,
    num_steps=5,
    key=KEY,
    stops=stops,
  )
  assert calls == [(0, 0), (2, 2), (5, 5)]


def test_a_loop_continues_from_the_step_of_its_state():
  step = jax.jit(toy_step)
  whole = train(step, fresh(), Frozen(), batches, num_steps=9, key=KEY)
  part = train(step, fresh(), Frozen(), batches, num_steps=4, key=KEY)
  # An iterable gives the batches from the state's step on.
  part = train(
    step,
    part,
    Frozen(),
    list(b for b, _ in zip(batches(4), range(5), strict=False)),
    num_steps=9,
    key=KEY,
  )
  np.testing.assert_array_equal(whole.params['w'], part.params['w'])
  assert int(train(step, part, Frozen(), [], num_steps=9, key=KEY).step) == 9


def test_a_pmapped_step_runs_in_the_same_loop():
  optimizer = make_optimizer(learning_rate=0.1)
  state = init_state(MODEL.init(jax.random.key(0)), optimizer)
  writer, rows, _ = _recorder()
  state = train(
    pmap_step(sft_objective(MODEL), optimizer),
    replicate(state),
    Frozen(),
    [batch_of(unit_pairs(13), rows=16)] * 6,
    num_steps=6,
    key=KEY,
    writer=writer,
    log_interval=3,
  )
  assert state.step.tolist() == [6] * 8
  losses = [row['loss'] for _, row in rows]
  assert losses == sorted(losses, reverse=True) and len(losses) == 3


def test_should_stop_saves_and_ends_with_status_zero(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  with pytest.raises(Preempted) as stopped:
    train(
      jax.jit(toy_step),
      fresh(),
      Frozen(),
      batches,
      num_steps=20,
      key=KEY,
      checkpoints=checkpoints,
      should_stop=lambda step: step >= 7,
    )
  assert stopped.value.step == 7
  assert isinstance(stopped.value, SystemExit) and stopped.value.code == 0
  assert checkpoints.steps() == [7]
  checkpoints.close()


def test_a_stop_in_a_pool_of_threads_reaches_the_main_thread():
  asked = threading.Event()

  def cell(index):
    train(
      jax.jit(toy_step),
      fresh(),
      Frozen(),
      batches,
      num_steps=10_000_000,
      key=KEY,
      stops={50: lambda step, state: asked.set()},
      should_stop=lambda step: asked.is_set(),
    )

  with pytest.raises(Preempted):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
      list(pool.map(cell, range(4)))


def test_checkpoints_resume_and_rewind_the_rows(tmp_path):
  step = jax.jit(toy_step)

  def run(num_steps, save_interval=0):
    writer, rows, rewinds = _recorder()
    checkpoints = Checkpoints(tmp_path)
    state = train(
      step,
      fresh(),
      Frozen(),
      batches,
      num_steps=num_steps,
      key=KEY,
      writer=writer,
      log_interval=2,
      checkpoints=checkpoints,
      save_interval=save_interval,
    )
    steps = checkpoints.steps()
    checkpoints.close()
    return state, [s for s, _ in rows], rewinds, steps

  assert run(5, save_interval=2)[1:] == ([1, 2, 4, 5], [(0, {})], [4, 5])
  assert run(8)[1:] == ([6, 8], [(5, {})], [5, 8])
  state, rows, rewinds, steps = run(8)  # finished: nothing to do
  assert int(state.step) == 8 and rows == [] and steps == [5, 8]
  with pytest.raises(
    ValueError, match='num_steps is 6, the state is at step 8'
  ):
    run(6)


def test_batches_that_end_early_and_bad_arguments(tmp_path):
  step = jax.jit(toy_step)
  few = [b for b, _ in zip(batches(0), range(3), strict=False)]
  with pytest.raises(ValueError, match='ended before step 4 of 5'):
    train(step, fresh(), Frozen(), few, num_steps=5, key=KEY)
  with pytest.raises(ValueError, match='max_nonfinite must be ≥ 1, got 0'):
    train(step, fresh(), Frozen(), few, num_steps=1, key=KEY, max_nonfinite=0)
  checkpoints = Checkpoints(tmp_path)
  with pytest.raises(ValueError, match='batches must be a function'):
    train(
      step,
      fresh(),
      Frozen(),
      few,
      num_steps=1,
      key=KEY,
      checkpoints=checkpoints,
    )
  checkpoints.close()


def test_an_empty_metric_counts_as_zero():
  def step(state, frozen, batch, key):
    new, metrics = toy_step(state, frozen, batch, key)
    nothing = Weighted(jnp.float32(0), jnp.float32(0))
    return new, {**metrics, 'rewards/margins': nothing}

  writer, rows, _ = _recorder()
  train(
    jax.jit(step),
    fresh(),
    Frozen(),
    batches,
    num_steps=2,
    key=KEY,
    writer=writer,
    log_interval=1,
  )
  assert rows[-1][1]['rewards/margins'] == 0.0
