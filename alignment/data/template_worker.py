"""Renders chat templates in a process of its own: python template_worker.py.

A template is a program of whoever wrote the model folder. It runs here in
Jinja's immutable sandbox, in a process without the rights to write files or to
start others, and with a bound on memory, processor time and output: loops that
print nothing and operators that never return cannot be stopped from inside.

Lines of JSON come in and go out. The first is the setup, {source, tokens, date,
seconds, bytes, characters}, answered by {}; every other is a list of
[messages, add_generation_prompt], answered by {texts}. What fails is answered
by {error}. The process ends with its input.

Only Jinja and the standard library are imported, so that it starts quickly.
"""

import datetime
import json
import resource
import sys

# Where Jinja is, for an isolated interpreter that looks nowhere else.
sys.path.extend(sys.argv[1:])

import jinja2
import jinja2.ext
import jinja2.sandbox

MAX_ERROR = 500
"""Characters of a template's own error that are passed on."""


class Generation(jinja2.ext.Extension):
  """`{% generation %}` … `{% endgeneration %}`, which marks an answer's text.

  The marks say which tokens to train on; here that is the completion.
  """

  tags = {'generation'}

  def parse(self, parser):
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    return jinja2.nodes.Scope(body, lineno=line)


class Namespace(jinja2.utils.Namespace):
  """Jinja's, without names that could reach into Python."""

  def __init__(*args, **values):
    self, *args = args
    for name in dict(*args, **values):
      _refuse_private(name)
    jinja2.utils.Namespace.__init__(self, *args, **values)

  def __setitem__(self, name, value):
    _refuse_private(name)
    super().__setitem__(name, value)


def _refuse_private(name):
  if str(name).startswith('_'):
    raise jinja2.exceptions.SecurityError(f'{name!r:.80} is a private name')


def environment(date):
  """What templates of `transformers` expect, and nothing that is random.

  Args:
    date: what `strftime_now` formats.
  """
  made = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[Generation, jinja2.ext.loopcontrols],
  )

  def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)

  def to_json(
    value, ensure_ascii=False, indent=None, separators=None, sort_keys=False
  ):
    return json.dumps(
      value,
      ensure_ascii=ensure_ascii,
      indent=indent,
      separators=separators,
      sort_keys=sort_keys,
    )

  del made.globals['lipsum'], made.filters['random']
  made.filters['tojson'] = to_json
  made.globals.update(
    raise_exception=raise_exception,
    strftime_now=lambda form: date.strftime(form),
    namespace=Namespace,
    # The type itself has methods.
    dict=lambda *args, **values: dict(*args, **values),
  )
  return made


def rendered(template, variables, most):
  """The text; more than `most` characters are a ValueError."""
  pieces, total = [], 0
  for piece in template.generate(variables):
    total += len(piece)
    if total > most:
      raise ValueError(f'writes more than {most} characters')
    pieces.append(piece)
  return ''.join(pieces)


def restrict(memory):
  """Takes rights away that rendering does not need."""
  limits = {
    resource.RLIMIT_AS: memory,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NPROC: 0,
  }
  for kind, most in limits.items():
    try:
      resource.setrlimit(kind, (most, most))
    except (OSError, ValueError):
      # Systems without this limit are left with those of time and output.
      continue


def allow_time(seconds):
  """The system ends the process where it takes longer from now on."""
  usage = resource.getrusage(resource.RUSAGE_SELF)
  used = int(usage.ru_utime + usage.ru_stime) + 1
  _, hard = resource.getrlimit(resource.RLIMIT_CPU)
  resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, hard))


def attempt(act):
  """(what `act` returns, None), or (None, why it failed)."""
  try:
    return act(), None
  except MemoryError:
    return None, 'needs too much memory'
  except Exception as error:
    return None, f'{type(error).__name__}: {error}'[:MAX_ERROR]


def reply(said):
  print(json.dumps(said), flush=True)


def main():
  setup = json.loads(sys.stdin.readline())
  restrict(setup['bytes'])
  allow_time(setup['seconds'])
  date = datetime.datetime.fromisoformat(setup['date'])
  template, error = attempt(
    lambda: environment(date).from_string(setup['source'])
  )
  if error:
    reply({'error': error})
    return
  reply({})
  shared = {**setup['tokens'], 'tools': None, 'documents': None}

  def texts(conversations):
    return [
      rendered(
        template,
        shared | {'messages': messages, 'add_generation_prompt': generation},
        setup['characters'],
      )
      for messages, generation in conversations
    ]

  for line in sys.stdin:
    allow_time(setup['seconds'])
    found, error = attempt(lambda line=line: texts(json.loads(line)))
    reply({'error': error} if error else {'texts': found})


if __name__ == '__main__':
  main()
