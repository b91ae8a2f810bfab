"""Audits of public data: what they must say, and what they must not.

`python -m pytest -m shared -s tests/experiments/audit_shared_test.py` prints
one table: predicted against observed over all of them.
"""

import csv
import functools
import json
import math

import pytest

from alignment.data.label_layouts import Naming
from alignment.data.label_tables import read_table
from alignment.data.readers import json_rows, read_file
from experiments.audit import Config, run
from experiments.report.tables import number, table

quick = functools.partial(Config, scenarios=0)

pytestmark = pytest.mark.shared


def llmbar_votes(shared_dir, path):
  """65 judge configurations, both orders, one row per verdict."""
  folder = shared_dir / 'data' / 'llmbar'
  items = {}
  for _, row in json_rows(str(folder / 'items.jsonl.gz')):
    items.setdefault(row['subset'], []).append((row['idx'], row['label']))
  with open(path, 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(
      ['task', 'worker', 'label', 'gold', 'worker_group', 'subset']
    )
    for _, row in json_rows(str(folder / 'judge_votes.jsonl.gz')):
      subset, judge = row['subset'], row['judge_llm']
      known = sorted(items.get(subset, ()))
      for order in ('final', 'final_swapped'):
        name = f'{judge} {row["strategy"]} {order}'
        if not known:
          continue
        for (idx, gold), said in zip(known, row[order], strict=True):
          if said in ('1', '2'):
            writer.writerow(
              [f'{subset} {idx}', name, said, gold, judge, subset]
            )


PANDALM = {
  'data': 'pandalm/testset_v1.jsonl.gz',
  'votes': ('annotator1', 'annotator2', 'annotator3'),
  'pair': ('response1', 'response2'),
  'text': ('instruction', 'input'),
  'tie': ('0',),
  'group': 'instruction',
}
XSTEST = {
  'data': 'xstest/human_and_auto_labels.jsonl.gz',
  'gold': 'final_label',
  'group': 'id',
  'slice': ('model',),
}
SETS = {
  'hh': {'data': 'hh_rlhf/harmless-base.test.jsonl.gz'},
  'ukp': {'data': 'ukp_convarg1'},
  'pandalm': PANDALM,
  'xstest humans': {**XSTEST, 'votes': ('annotation_1', 'annotation_2')},
  'xstest judges': {**XSTEST, 'votes': ('gpt4_label', 'strmatch_label')},
  'persona': {
    'data': 'anthropic_evals/persona.jsonl.gz',
    'label': 'answer_matching_behavior',
    'text': ('statement',),
    'confidence': 'label_confidence',
    'group': 'behavior',
    'max_rows': 4000,
  },
}


@pytest.fixture(scope='module')
def audit(shared_dir, tmp_path_factory):
  folder = tmp_path_factory.mktemp('audits')

  @functools.cache
  def of(name):
    config = {'output_dir': str(folder / name.replace(' ', '_'))}
    if name == 'llmbar':
      path = folder / 'llmbar.csv'
      llmbar_votes(shared_dir, path)
      return run(quick(data=str(path), slice=('subset',), **config))
    given = SETS[name]
    path = str(shared_dir / 'data' / given['data'])
    return run(quick(**{**given, 'data': path}, **config))

  return of


def test_two_columns_without_votes_give_no_rate(audit):
  result = audit('hh')
  assert not result['is_identified'] and result['policy'] == 'ask'
  assert 'cannot be known' in result['verdict']
  assert result['actions']['keep'] + result['actions']['ask'] == 2308
  # Shorter answers are preferred where harm is to be avoided.
  _, low, high, _ = result['baselines']['the longer text is labelled better']
  assert high < 0.5
  records, _ = read_file(result['cleaned'])
  assert {r.label_prob for r in records} == {1.0}


def test_crowd_votes_differ_in_rate_by_row(audit):
  result = audit('ukp')
  found = result['rates']['agreement']
  # 16 % over all sixteen titles; twelve of them are here.
  assert found['low'] < 0.16 < found['high']
  assert result['heterogeneity_p'] < 0.001
  assert 'is a lower bound' in result['verdict']
  bounds = result['rates']['agreement_bounds']
  assert bounds['low'] < found['rate'] < bounds['high']
  held = [c for c in result['checks'] if 'held out' in c[0]]
  assert len(held) >= 8 and sum(c[4] for c in held) >= len(held) - 1
  # The text alone finds what other workers call wrong.
  assert result['scores']['small_loss'][0][1] > 0.6
  assert result['policy'] == 'soften' and result['actions']['flip'] == 0
  records, _ = read_file(result['cleaned'])
  assert len(records) == result['rows'] and {r.label_prob for r in records} > {
    1.0
  }


def test_careful_annotators_hardly_err(audit):
  result = audit('pandalm')
  found = result['rates']['agreement']
  assert found['low'] < 0.027 < found['high'] < 0.06
  # Two independent ways to the error of a majority of three.
  checks = [
    c for c in result['checks'] if c[0] == 'error of the majority label'
  ]
  assert len(checks) == 2 and all(c[4] for c in checks)


def test_judges_that_err_together_are_told_from_independent_ones(audit):
  result = audit('llmbar')
  correlated, pairs = result['correlated_pairs']
  assert correlated > 100 and pairs > 2000
  assert 'errors are correlated' in result['verdict']
  assert result['policy'] == 'ask'
  observed = {c[1]: c for c in result['checks']}
  # Agreement is too favourable, by far, and is shown to be.
  assert observed['agreement'][4] is False
  assert observed['agreement'][3][0] > 0.3


def test_humans_hold_where_judges_fail(audit):
  humans = {c[1]: c for c in audit('xstest humans')['checks']}
  judges = {c[1]: c for c in audit('xstest judges')['checks']}
  assert humans['agreement'][4] is True
  assert judges['agreement'][4] is False
  assert abs(humans['agreement'][2][0] - 0.018) < 0.005
  assert judges['agreement'][2][2] < judges['agreement'][3][1]


def test_stated_confidence_is_a_rate_with_its_assumption(audit):
  result = audit('persona')
  found = result['rates']['stated']
  assert result['of_labels'] == 'stated'
  assert found['low'] < 0.14 < found['high']
  assert 'stated probabilities are calibrated' in result['verdict']
  naming = Naming(label='answer_matching_behavior', text=('statement',))
  cleaned = read_table(result['cleaned'], naming)
  assert len(cleaned) == 4000 and cleaned.classes == ('No', 'Yes')


def test_three_classes_without_texts_work_directly(shared_dir, tmp_path):
  path = shared_dir / 'data' / 'pandalm' / 'testset_v1.jsonl.gz'
  result = run(
    quick(
      data=str(path),
      votes=('annotator1', 'annotator2', 'annotator3'),
      group='instruction',
      output_dir=str(tmp_path),
    )
  )
  assert result['rows'] == 999 and result['of_votes'] == 'annotators'
  assert 0.02 < result['rates']['annotators']['rate'] < 0.08


def test_one_table_of_predictions_and_observations(audit, tmp_path):
  rows = []
  for name in (*SETS, 'llmbar'):
    for what, by, predicted, observed, holds in audit(name)['checks']:
      rows.append(
        [name, what, by, _range(predicted), _range(observed), str(holds)]
      )
  head = ['data', 'what', 'predicted by', 'predicted', 'observed', 'holds']
  text = table(head, rows)
  (tmp_path / 'table.md').write_text(text)
  print(f'\n{text}\n')
  assert len({row[0] for row in rows}) >= 5
  for name in (*SETS, 'llmbar'):
    json.dumps(audit(name), allow_nan=False)


def _range(values):
  value, low, high = values
  if value is None or math.isnan(value):
    return f'{number(low)} to {number(high)}'
  return f'{number(value)} [{number(low)}, {number(high)}]'
