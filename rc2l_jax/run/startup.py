"""Before anything is computed: check the config and devices, prepare JAX, count processes."""

from __future__ import annotations

from pathlib import Path

import jax
from absl import logging
from ml_collections import ConfigDict

from rc2l_jax.run.config import ConfigError, validate

# Limit of the cache on disk; beyond it, JAX removes the programs that were unused for longest.
MAX_BYTES = 10 * 2**30
_BFLOAT16_SINCE = 8.0  # compute capability of the first GPUs that multiply bfloat16 (Ampere)


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


def prepare_devices(config: ConfigDict) -> None:
    """Tells JAX where compiled programs are kept and with how many bits matrices are multiplied.

    Args:
      config: `compilation_cache` and `matmul_precision` are read. "default" leaves what the user
        gave JAX itself (`JAX_DEFAULT_MATMUL_PRECISION`) as it is.
    """
    keep_compiled_programs(config.compilation_cache)
    if config.matmul_precision != "default":
        jax.config.update("jax_default_matmul_precision", config.matmul_precision)


def start(config: ConfigDict, *, trains: bool) -> None:
    """Validates the config for this run's devices, and prepares them.

    Args:
      config: the run's config.
      trains: whether it is used to train, or only to evaluate; see `validate`.

    Raises:
      ConfigError: lists every problem found.
    """
    validate(config, jax.device_count(), trains=trains)
    if trains:
        check_matcher(config.matcher)
    for line in device_warnings(config.dtype):
        logging.warning(line)
    prepare_devices(config)


def check_matcher(matcher: str) -> None:
    """Checks that the matcher can run here.

    Raises:
      ConfigError: "host" lacks JAX's CPU backend. Without this check the first step would fail.
    """
    if matcher != "host" or jax.default_backend() == "cpu":
        return
    try:
        jax.devices("cpu")
    except RuntimeError:
        platforms = jax.config.jax_platforms
        problem = (
            f"matcher = 'host' needs JAX's CPU backend, which JAX_PLATFORMS={platforms} leaves "
            f"out: set JAX_PLATFORMS={platforms},cpu, or --config.matcher=device"
        )
        raise ConfigError([problem]) from None


def device_warnings(dtype: str) -> list[str]:
    """What is known to be slow with activations of a dtype on this process's devices."""
    device = jax.local_devices()[0]
    capability = getattr(device, "compute_capability", None)
    if dtype != "bfloat16" or capability is None or float(capability) >= _BFLOAT16_SINCE:
        return []
    return [
        f"{device.device_kind} (compute capability {capability}) emulates bfloat16, which came "
        f"with {_BFLOAT16_SINCE}: --config.dtype=float32 is faster"
    ]


def topology() -> tuple[int, int, int]:
    """Returns the number of local devices, this process's index and the number of processes."""
    return jax.local_device_count(), jax.process_index(), jax.process_count()
