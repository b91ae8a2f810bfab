"""Eight simulated CPU devices and one compilation cache for every test."""

import gc
import os
import pathlib

_FLAG = '--xla_force_host_platform_device_count'
if _FLAG not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_FLAG}=8'
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR',
  str(pathlib.Path.home() / '.cache' / 'superalignment' / 'jax'),
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')

import jax  # noqa: E402
import pytest  # noqa: E402

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_MAPS = pathlib.Path('/proc/self/maps')


@pytest.fixture(scope='session')
def shared_dir() -> pathlib.Path:
  """The folder of public data beside the checkout."""
  folder = _ROOT.parent / 'shared'
  if not folder.is_dir():
    pytest.skip('the public data is not beside this checkout')
  return folder


@pytest.fixture
def golden(shared_dir: pathlib.Path):
  """Double precision, in which golden numbers of other code are compared."""
  if not (shared_dir / 'golden').is_dir():
    pytest.skip('the golden files are not beside this checkout')
  with jax.enable_x64(True):
    yield


@pytest.fixture(scope='module', autouse=True)
def _memory_maps():
  """Forgets compiled programs before they use up the memory maps.

  Linux allows a process 65,530; a program takes about 15, and XLA crashes
  without a word where none is left.
  """
  yield
  if _MAPS.exists() and _MAPS.read_bytes().count(b'\n') > 20_000:
    jax.clear_caches()
    gc.collect()
