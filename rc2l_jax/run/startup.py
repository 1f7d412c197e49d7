"""Before anything is computed: validate the config, cache compiled programs, count processes."""

from __future__ import annotations

from pathlib import Path

import jax
from ml_collections import ConfigDict

from rc2l_jax.run.config import validate

# Limit of the cache on disk; beyond it, JAX removes the programs that were unused for longest.
MAX_BYTES = 10 * 2**30


def keep_compiled_programs(directory: str) -> Path | None:
    """Turns on JAX's persistent compilation cache, so that later runs need not compile again.

    Settings that the user gave JAX itself (`JAX_COMPILATION_CACHE_DIR` and the like) stay as they
    are. Otherwise there is no cache on CPUs: XLA would store machine code, which a shared home
    directory could hand to another kind of CPU, and some CPUs refuse even their own (JAX issue
    38445). Programs with a host callback, such as the step with `matcher = "host"`, are cached by
    JAX 0.11 and later, but not by 0.10.

    Args:
      directory: the cache's folder; "" for no cache.

    Returns:
      The folder in use, or None.
    """
    chosen = jax.config.jax_compilation_cache_dir
    if chosen is None and directory and jax.default_backend() != "cpu":
        chosen = str(Path(directory).expanduser())
        jax.config.update("jax_compilation_cache_dir", chosen)
        if jax.config.jax_compilation_cache_max_size == -1:
            jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    return Path(chosen) if chosen else None


def start(config: ConfigDict, *, trains: bool) -> None:
    """Validates the config for this run's devices, and turns on the compilation cache.

    Args:
      config: the run's config.
      trains: whether it is used to train, or only to evaluate; see `validate`.

    Raises:
      ConfigError: lists every problem found.
    """
    validate(config, jax.device_count(), trains=trains)
    keep_compiled_programs(config.compilation_cache)


def topology() -> tuple[int, int, int]:
    """Returns the number of local devices, this process's index and the number of processes."""
    return jax.local_device_count(), jax.process_index(), jax.process_count()
