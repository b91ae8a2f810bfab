"""What a worker asks of JAX, ours or another library's: memory and peaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def keep_programs(cache_dir: str) -> None:
  """Keeps compiled programs in a folder; nothing where it is ''."""
  if cache_dir:
    jax.config.update('jax_compilation_cache_dir', cache_dir)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def device() -> str:
  return jax.devices()[0].device_kind


def device_memory() -> int | None:
  """Peak bytes in use on the first device; None on a host."""
  if jax.devices()[0].platform == 'cpu':
    return None
  stats = jax.local_devices()[0].memory_stats() or {}
  return int(stats.get('peak_bytes_in_use', 0))


def matmul(dtype: str, n: int) -> Callable[[], Any]:
  """A product of two n × n matrices, summed in float32."""
  left = jnp.full((n, n), 1 / 3, dtype)
  precision = lax.Precision.HIGHEST if dtype == 'float32' else None

  @jax.jit
  def product(a, b):
    return lax.dot(
      a, b, precision=precision, preferred_element_type=jnp.float32
    )

  return lambda: product(left, left).block_until_ready()


def copy(num_bytes: int) -> Callable[[], Any]:
  """Reads and writes `num_bytes` in all."""
  source = jnp.zeros(num_bytes // 8, jnp.float32)
  add = jax.jit(lambda x: x + 1.0)
  return lambda: add(source).block_until_ready()
