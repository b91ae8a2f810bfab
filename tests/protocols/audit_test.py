"""Parts of an audit against brute force, simulation and known truths."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from scipy import sparse, stats

from alignment.data.features import bag_of_words
from alignment.data.label_layouts import Naming
from alignment.data.records import Preference, Report, Unpaired, Vote, VotedPair
from alignment.noise.crowd.table import VoteTable
from alignment.protocols.audit import baselines, checks, cleaning, reading
from alignment.protocols.audit.annotators import Annotators, find_annotators
from alignment.protocols.audit.from_records import from_records
from alignment.protocols.audit.rates import find_rates
from alignment.protocols.audit.sources import Request, read_subject
from alignment.protocols.audit.suspicion import find_suspicion


def preferences(chosen, rejected, prompts, **columns):
  size = len(chosen)
  return [
    Preference(
      prompt=prompts[i],
      chosen=chosen[i],
      rejected=rejected[i],
      index=i,
      group=prompts[i],
      **{name: values[i] for name, values in columns.items()},
    )
    for i in range(size)
  ]


def subject_of(records, seed=0):
  return from_records(records, Report('test'), seed=seed)


def all_pairs(num_prompts, num_texts, rate_of, rng):
  """Every pair of every prompt, truly ordered by text number, flipped."""
  chosen, rejected, prompts = [], [], []
  for p in range(num_prompts):
    for a, b in itertools.combinations(range(num_texts), 2):
      better, worse = f'text {a} of {p}', f'text {b} of {p}'
      if rng.random() < rate_of(b - a):
        better, worse = worse, better
      chosen.append(better)
      rejected.append(worse)
      prompts.append(f'prompt {p}')
  return subject_of(preferences(chosen, rejected, prompts))


def test_cycles_tell_a_rate_that_hits_every_pair_alike():
  rng = np.random.default_rng(0)
  found = baselines.triangle_rate(all_pairs(60, 7, lambda _: 0.15, rng))
  assert found.low < 0.15 < found.high
  # 60 groups of 35 triangles: half a width of about .03.
  assert found.high - found.low < 0.08 and found.unit == 'groups'


def test_cycles_are_a_lower_bound_where_close_pairs_err_more():
  rng = np.random.default_rng(1)
  subject = all_pairs(60, 7, lambda gap: 0.4 * 0.4 ** (gap - 1), rng)
  texts = subject.texts
  wrong = [
    int(t[1].split()[1] > t[2].split()[1]) != y
    for t, y in zip(texts, subject.evidence.label, strict=True)
  ]
  found = baselines.triangle_rate(subject)
  assert found.high < np.mean(wrong) and baselines.CLOSE_PAIRS in found.flags


def test_triangles_and_cycles_are_counted_as_by_hand():
  rng = np.random.default_rng(2)
  subject = all_pairs(3, 6, lambda _: 0.45, rng)
  beats = {
    (t[0], t[1 + y], t[2 - y])
    for t, y in zip(subject.texts, subject.evidence.label, strict=True)
  }
  cycles = 0
  for p in range(3):
    names = [f'text {a} of {p}' for a in range(6)]
    for a, b, c in itertools.combinations(names, 3):
      edges = [(f'prompt {p}', x, y) for x, y in ((a, b), (b, c), (c, a))]
      turned = [(q, y, x) for q, x, y in edges]
      cycles += all(e in beats for e in edges)
      cycles += all(e in beats for e in turned)
  found = baselines.repeats(subject)
  assert (found.triangles, found.cycles) == (3 * 20, cycles)


def test_pairs_labelled_both_ways_are_found_in_either_order():
  subject = subject_of(
    preferences(
      ['a b', 'c d', 'c d', 'e', 'e'],
      ['c d', 'a b', 'a b', 'f', 'f'],
      ['p', 'p', 'p', 'q', 'q'],
    )
  )
  found = baselines.repeats(subject)
  assert (found.rows, found.pairs, found.contradicted) == (5, 2, 1)
  assert found.examples == ((0, 1, 2),)


def test_repeated_rows_are_votes():
  rng = np.random.default_rng(3)
  chosen, rejected, prompts = [], [], []
  for p in range(400):
    for _ in range(2):
      pair = ['good', 'bad']
      if rng.random() < 0.2:
        pair.reverse()
      chosen.append(f'{pair[0]} {p}')
      rejected.append(f'{pair[1]} {p}')
      prompts.append(f'prompt {p}')
  subject = subject_of(preferences(chosen, rejected, prompts))
  rates = find_rates(
    subject, subject.evidence, Annotators(), np.random.default_rng(0)
  )
  assert rates.of_labels.estimator == 'repeated_rows'
  assert rates.of_labels.low < 0.2 < rates.of_labels.high
  # The same rows copied agree always, which says nothing.
  copies = subject_of(
    preferences(
      np.repeat(chosen[::2], 2).tolist(),
      np.repeat(rejected[::2], 2).tolist(),
      prompts,
    )
  )
  rates = find_rates(
    copies, copies.evidence, Annotators(), np.random.default_rng(0)
  )
  refusal = {e.estimator: e.refusal for e in rates.estimates}['repeated_rows']
  assert 'copies cannot be told' in refusal and not rates.is_identified


def test_the_order_of_pairs_is_a_coin_of_seed_and_index():
  rng = np.random.default_rng(4)
  words = [f'w{i}' for i in range(400)]
  records = preferences(words, words[::-1], ['p'] * 400)
  first = subject_of(records)
  assert 150 < first.evidence.label.sum() < 250
  order = rng.permutation(400)
  again = subject_of([records[i] for i in order])
  np.testing.assert_array_equal(
    again.evidence.label, first.evidence.label[order]
  )
  other = subject_of(records, seed=1)
  assert np.any(other.evidence.label != first.evidence.label)
  for text, y, record in zip(
    first.texts, first.evidence.label, records, strict=True
  ):
    assert (text[1 + y], text[2 - y]) == (record.chosen, record.rejected)


def test_votes_of_a_folder_are_seen_from_the_first_text():
  pairs = [
    VotedPair(
      prompt='p',
      first=f'a{i}',
      second=f'b{i}',
      # Worker 7 prefers what stood first, worker 9 the second text.
      votes=(Vote(7, 1), Vote(9, -1), Vote(8, -1), Vote(3, 0)),
      index=i,
      group='g',
    )
    for i in range(40)
  ]
  subject = subject_of(pairs)
  votes = subject.evidence.votes
  assert subject.workers == ('worker 7', 'worker 9', 'worker 8')
  for i, (text, record) in enumerate(
    zip(subject.texts, subject.records, strict=True)
  ):
    assert record.chosen == f'b{i}' and record.rejected == f'a{i}'
    mine = votes.task == i
    said = [text[1 + y] for y in votes.label[mine]]
    assert said == [f'a{i}', f'b{i}', f'b{i}']
  left = (votes.label == 0) == (subject.is_left > 0)
  np.testing.assert_array_equal(left, votes.worker == 0)
  assert subject.extras[0] == {'votes_for': 2, 'votes_against': 1}


def test_unsigned_votes_are_seen_from_chosen():
  records = preferences(
    ['a', 'b', 'c'],
    ['x', 'y', 'z'],
    ['p', 'q', 'r'],
    votes=[(1, -1, 0), (-1, -1), ()],
    clean_label=[True, False, None],
  )
  subject = subject_of(records)
  evidence = subject.evidence
  counts = evidence.votes.counts[np.arange(3), evidence.label]
  np.testing.assert_array_equal(counts, [2, 1, 1])
  np.testing.assert_array_equal(evidence.votes.counts.sum(axis=1), [3, 3, 1])
  is_clean = evidence.clean_label == evidence.label
  assert is_clean.tolist() == [True, False, False]
  assert evidence.clean_label[2] == -1 and subject.workers == ()


def test_differences_of_texts_are_those_of_a_matrix():
  rng = np.random.default_rng(5)
  texts = [' '.join(rng.choice(list('abcdefg'), 5)) for _ in range(12)]
  first, second = rng.integers(0, 12, 30), rng.integers(0, 12, 30)
  words, lengths = bag_of_words(texts), rng.normal(size=30)
  found = reading.Differences(words, first, second, lengths)
  wanted = sparse.hstack(
    [words[first] - words[second], sparse.csr_array(lengths[:, None])]
  ).toarray()
  weights, pull = rng.normal(size=wanted.shape[1]), rng.normal(size=30)
  np.testing.assert_allclose(found @ weights, wanted @ weights, atol=1e-12)
  np.testing.assert_allclose(found.T @ pull, wanted.T @ pull, atol=1e-12)
  rows = np.array([4, 4, 17])
  np.testing.assert_allclose(
    found[rows] @ weights, wanted[rows] @ weights, atol=1e-12
  )


def test_no_group_and_no_text_is_in_two_folds():
  group = np.array([0, 0, 1, 2, 3, 4, 4, 5])
  texts = [
    ('p', 'a', 'b'),
    ('p', 'c', 'd'),
    ('p', 'b', 'e'),  # b of p joins groups 0 and 1.
    ('q', 'b', 'e'),  # b of q does not.
    ('r', 'f', 'g'),
    ('r', 'h', 'i'),
    ('s', 'j', 'k'),  # Group 4 joins r's second row and s.
    ('s', 'l', 'm'),
  ]
  cluster = reading.clusters_of(group, texts)
  together = cluster[:, None] == cluster[None, :]
  wanted = np.eye(8, dtype=bool)
  for rows in ([0, 1, 2], [5, 6]):
    wanted[np.ix_(rows, rows)] = True
  np.testing.assert_array_equal(together, wanted)
  fold = reading.deal(cluster, np.random.default_rng(0))
  for c in np.unique(cluster):
    assert len(np.unique(fold[cluster == c])) == 1
  assert sorted(np.bincount(fold).tolist()) == [1, 1, 1, 2, 3]


def test_out_of_fold_probabilities_are_calibrated():
  rng = np.random.default_rng(6)
  size, width = 3000, 8
  dense = rng.normal(size=(size, width))
  truth = 1 / (1 + np.exp(-(dense @ np.linspace(-1, 1, width))))
  label = (rng.random(size) > truth).astype(int)
  found = reading.read(
    sparse.csr_array(dense),
    label,
    np.arange(size) // 3,
    num_classes=2,
    rng=rng,
  )
  assert np.mean(np.abs(found.probs[:, 0] - truth)) < 0.03
  for c in range(5):
    inside = (found.probs[:, 0] > c / 5) & (found.probs[:, 0] < (c + 1) / 5)
    # Some 600 rows a bin: a standard error of .02.
    gap = np.mean(label[inside] == 0) - found.probs[inside, 0].mean()
    assert abs(gap) < 0.06


def test_labels_without_a_cause_are_not_learned():
  rng = np.random.default_rng(7)
  features = sparse.csr_array(rng.normal(size=(900, 40)))
  label = rng.integers(0, 3, 900)
  found = reading.read(features, label, np.arange(900), num_classes=3, rng=rng)
  assert np.abs(found.probs - 1 / 3).max() < 0.2
  one = reading.read(
    features, np.zeros(900, int), np.arange(900), num_classes=3, rng=rng
  )
  assert one is None


def test_error_of_a_majority_is_that_of_a_simulation():
  rng = np.random.default_rng(8)
  sizes = rng.integers(1, 7, 400)
  task = np.repeat(np.arange(400), sizes)
  votes = VoteTable(task, np.zeros_like(task), np.zeros_like(task), 400, 1, 2)
  wrong = stats.binom.rvs(
    sizes[:, None], 0.3, size=(400, 4000), random_state=rng
  )
  share = np.where(
    2 * wrong == sizes[:, None], np.nan, 2 * wrong > sizes[:, None]
  )
  wanted = np.nanmean(share, axis=1).mean()
  assert checks.majority_error(votes, 0.3) == pytest.approx(wanted, abs=0.002)


def plan_of(records, **settings):
  subject = subject_of(records)
  rng = np.random.default_rng(0)
  annotators = Annotators()
  rates = find_rates(
    subject,
    subject.evidence,
    annotators,
    rng,
    assumed=settings.pop('assumed', None),
  )
  suspicion = find_suspicion(subject, subject.evidence, rates, annotators)
  plan = cleaning.make_plan(
    subject, subject.evidence, suspicion, rng, **settings
  )
  return subject, suspicion, plan


def test_without_votes_nothing_is_changed_and_questions_keep_the_secret():
  records = preferences(
    [f'good {i}' for i in range(60)],
    [f'bad {i}' for i in range(60)],
    [f'q{i}' for i in range(60)],
  )
  subject, _, plan = plan_of(records, ask_budget=7)
  assert plan.policy == 'ask' and plan.repair.count('ask') == 7
  assert np.all(np.isnan(plan.repair.flip_posterior))
  np.testing.assert_array_equal(plan.repair.label, subject.evidence.label)
  question = cleaning.question(subject, 3)
  assert set(question) == {
    *('index', 'group', 'prompt', 'first', 'second', 'answers')
  }
  for action in cleaning.NEEDS_PROBABILITY:
    with pytest.raises(ValueError, match=f'--action={action}: nothing'):
      plan_of(records, action=action)


def test_an_assumed_rate_without_a_model_is_a_uniform_soft_label(tmp_path):
  records = preferences(['good', 'fine'], ['bad', 'poor'], ['q', 'r'])
  subject, suspicion, plan = plan_of(records, assumed=0.2)
  assert plan.policy == 'soften'
  np.testing.assert_allclose(plan.repair.label_prob, 0.8)
  paths = cleaning.write(tmp_path / 'cleaned.jsonl', subject, plan, suspicion)
  rows = [json.loads(x) for x in open(paths['cleaned'])]
  assert [row['label_prob'] for row in rows] == pytest.approx([0.8, 0.8])
  assert [row['chosen'] for row in rows] == ['good', 'fine']


def test_unpaired_labels_are_reweighted_for_want_of_a_soft_label():
  records = [
    Unpaired(
      prompt=f'q{i}',
      completion='text',
      label=i % 2 == 0,
      index=i,
      group=f'q{i}',
    )
    for i in range(10)
  ]
  _, _, plan = plan_of(records, assumed=0.2)
  assert plan.policy == 'reweight'
  np.testing.assert_allclose(plan.repair.weight, 0.8)
  with pytest.raises(ValueError, match='--action=soften: rows of'):
    plan_of(records, assumed=0.2, action='soften')


def test_rows_without_votes_are_not_held_for_undecided(tmp_path):
  rng = np.random.default_rng(9)
  lines = ['label,one,two']
  for i in range(300):
    said = ['ab'[int(rng.random() < 0.1)] for _ in range(3)]
    # Two votes on every fifth row, the label alone on the others.
    lines.append(','.join([said[0], *(said[1:] if i % 5 == 0 else ('', ''))]))
  path = tmp_path / 'some.csv'
  path.write_text('\n'.join(lines) + '\n')
  naming = Naming(label='label', votes=('one', 'two'))
  subject = read_subject(Request(data=str(path), naming=naming))
  evidence, rng = subject.evidence, np.random.default_rng(0)
  annotators = find_annotators(subject, evidence, rng)
  rates = find_rates(subject, evidence, annotators, rng)
  suspicion = find_suspicion(subject, evidence, rates, annotators)
  silent = evidence.votes.counts.sum(axis=1) == 0
  wrong = suspicion.wrong(evidence.label)
  assert silent.sum() == 240
  np.testing.assert_allclose(wrong[silent], rates.of_votes.rate)
  assert '240 rows without votes' in suspicion.reason


def test_doubt_keeps_labels_as_they_are():
  records = preferences(['good', 'fine'], ['bad', 'poor'], ['q', 'r'])
  subject, suspicion, _ = plan_of(records, assumed=0.2)
  plan = cleaning.make_plan(
    subject,
    subject.evidence,
    suspicion._replace(doubt='annotators copy each other'),
    np.random.default_rng(0),
  )
  assert plan.policy == 'ask' and 'annotators copy' in plan.why


def test_values_that_json_cannot_say_do_not_stop_a_cleaned_file(tmp_path):
  records = preferences(['good', 'fine'], ['bad', 'poor'], ['q', 'r'])
  subject, suspicion, plan = plan_of(records)
  odd = {'when': np.datetime64('2026-01-02'), 'score': float('nan'), 'n': 3}
  subject = dataclasses.replace(subject, extras=[odd, {}])
  paths = cleaning.write(tmp_path / 'cleaned.jsonl', subject, plan, suspicion)
  first = json.loads(open(paths['cleaned']).readline())
  assert first['when'] == '2026-01-02' and first['n'] == 3
  assert 'score' not in first


def test_a_sample_of_a_long_table_keeps_whole_tasks(tmp_path):
  rows = [
    f't{i},w{a},{"yes" if (i + a) % 3 else "no"}'
    for i in range(50)
    for a in range(4)
  ]
  path = tmp_path / 'long.csv'
  path.write_text('\n'.join(['task,worker,label', *rows]) + '\n')
  subject = read_subject(Request(data=str(path), max_rows=20))
  assert len(subject) == 20 and len(subject.evidence.votes) == 80
  again = read_subject(Request(data=str(path), max_rows=20))
  assert [r['task'] for r in again.extras] == [
    r['task'] for r in subject.extras
  ]
