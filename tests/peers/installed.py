"""The other libraries, imported inside a test or not at all."""

import types

import pytest


def peer(name: str) -> types.ModuleType:
  """The module `name`; skips the test that asks where it is not installed."""
  return pytest.importorskip(
    name, reason=f'{name} is not installed; the extra `peers` brings it'
  )
