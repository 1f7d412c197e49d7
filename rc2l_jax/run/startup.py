"""Compiled programs are kept from one run to the next."""

from __future__ import annotations

from pathlib import Path

import jax
from ml_collections import ConfigDict

from rc2l_jax.run.config import validate

# What is kept on disk at most; the programs not used for longest go first.
MAX_BYTES = 10 * 2**30


def keep_compiled_programs(directory: str) -> Path | None:
    """Turns JAX's persistent compilation cache on, for accelerators.

    What the user has told JAX itself (`JAX_COMPILATION_CACHE_DIR` and its like) is left as it is.
    Not on a CPU: XLA keeps machine code there, which a shared home directory would hand to another
    kind of CPU, and on some CPUs it refuses its own (JAX issue 38445). Programs with a host
    callback, as the step with `matcher = "host"`, are kept from JAX 0.11 on, and not by 0.10.

    Args:
      directory: where; "" for nowhere.

    Returns:
      The directory in use, or None.
    """
    chosen = jax.config.jax_compilation_cache_dir
    if chosen is None and directory and jax.default_backend() != "cpu":
        chosen = str(Path(directory).expanduser())
        jax.config.update("jax_compilation_cache_dir", chosen)
        if jax.config.jax_compilation_cache_max_size == -1:
            jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    return Path(chosen) if chosen else None


def start(config: ConfigDict, *, trains: bool) -> None:
    """Validates a config (see there), and lets JAX keep what it compiles."""
    validate(config, jax.device_count(), trains=trains)
    keep_compiled_programs(config.compilation_cache)


def topology() -> tuple[int, int, int]:
    """Returns local devices, this process's index and the number of processes."""
    return jax.local_device_count(), jax.process_index(), jax.process_count()
