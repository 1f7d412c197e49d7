"""rc2l_jax/run/startup.py: where compiled programs are kept; no step is compiled twice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny

from rc2l_jax.method.optimizer import create_optimizer
from rc2l_jax.method.state import initial_state
from rc2l_jax.models.maskformer import build_model
from rc2l_jax.run.config import ConfigError
from rc2l_jax.run.startup import (
    MAX_BYTES,
    check_matcher,
    device_warnings,
    keep_compiled_programs,
    prepare_devices,
)

NAMES = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size")


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    """Pretends that there is a GPU and that JAX's settings are at their defaults; restores them."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    before = {name: getattr(jax.config, name) for name in NAMES}
    for name, value in zip(NAMES, (None, -1)):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def settings() -> tuple[str | None, int]:
    return tuple(getattr(jax.config, name) for name in NAMES)


def test_the_configs_directory_is_used_within_bounds():
    assert keep_compiled_programs("~/x") == Path.home() / "x"
    assert settings() == (str(Path.home() / "x"), MAX_BYTES)
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_compilation_cache_max_size", 7)
    keep_compiled_programs("/y")
    assert settings() == ("/y", 7)


def test_what_the_user_told_jax_wins():
    jax.config.update("jax_compilation_cache_dir", "/mine")
    for directory in ("/other", ""):
        assert keep_compiled_programs(directory) == Path("/mine")
    assert settings() == ("/mine", -1)


def test_nothing_is_kept_on_a_cpu_or_without_a_directory(monkeypatch):
    assert keep_compiled_programs("") is None
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert keep_compiled_programs("/other") is None
    assert settings() == (None, -1)


def test_the_precision_of_matrix_products():
    before = jax.config.jax_default_matmul_precision
    try:
        prepare_devices(tiny.config(compilation_cache=""))
        assert jax.config.jax_default_matmul_precision == before
        prepare_devices(tiny.config(compilation_cache="", matmul_precision="highest"))
        assert jax.config.jax_default_matmul_precision == "highest"
        text = jax.jit(lambda a: a @ a).lower(np.ones((4, 4), np.float32)).as_text()
        assert "HIGHEST" in text
    finally:
        jax.config.update("jax_default_matmul_precision", before)


def test_the_host_matcher_asks_for_the_cpu_backend(monkeypatch):
    check_matcher("host")  # there is one

    def no_backend(platform=None):
        raise RuntimeError(f"Unknown backend {platform}")

    monkeypatch.setattr(jax, "devices", no_backend)
    check_matcher("device")
    with pytest.raises(ConfigError, match=r"set JAX_PLATFORMS=.*,cpu, or --config.matcher=device"):
        check_matcher("host")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    check_matcher("host")


@pytest.mark.parametrize(
    ("capability", "dtype", "warned"),
    [("7.0", "bfloat16", True), ("7.0", "float32", False), ("8.0", "bfloat16", False)],
)
def test_gpus_that_emulate_bfloat16_are_named(monkeypatch, capability, dtype, warned):
    gpu = SimpleNamespace(device_kind="Tesla V100", compute_capability=capability)
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    lines = device_warnings(dtype)
    assert len(lines) == warned
    assert all("Tesla V100" in x and "--config.dtype=float32 is faster" in x for x in lines)


def test_a_cpu_is_not_warned_of():
    assert device_warnings("bfloat16") == []


@pytest.mark.parametrize("norm", ["frozen", "group", "batch"])
def test_the_first_state_has_the_types_that_a_step_returns(norm):
    """A weakly typed leaf, as `jnp.full` makes it, would make JAX compile the second step anew."""
    config = tiny.config(model__norm=norm)
    model, optimizer = build_model(config), create_optimizer(config)
    state = jax.eval_shape(lambda: initial_state(model, optimizer, config))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    assert [jax.tree_util.keystr(path) for path, leaf in leaves if leaf.weak_type] == []
