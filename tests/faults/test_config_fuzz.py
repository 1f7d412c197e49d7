"""rc2l_jax/run/config.py: any override is accepted and works, or is refused in a clear sentence."""

from __future__ import annotations

import math

import jax
import pytest
import tiny
from faults.runs import Runs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs import base
from rc2l_jax.method.optimizer import create_optimizer
from rc2l_jax.method.state import initial_state
from rc2l_jax.models.maskformer import build_model
from rc2l_jax.run.config import ConfigError, dotted, validate
from rc2l_jax.run.config_values import CHOICES, MULTIPLES_OF_32, RANGES
from rc2l_jax.training.devices import parallel_train_step

SCHEMA = dotted(base.get_config())
EXAMPLES = settings(
    deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 3, 32, 33, 64, 255, 2**31, 2**63, 10**30]),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 1.5, -1e-9, 1e300, math.inf, -math.inf, math.nan]),
    st.integers(-5, 300),
    st.floats(-1, 3),
)
ANYTHING = st.one_of(
    NUMBERS,
    st.booleans(),
    st.text(max_size=8),
    st.sampled_from([word for words in CHOICES.values() for word in words]),
    st.lists(NUMBERS, max_size=3).map(tuple),
)
KEYS = st.sampled_from(list(SCHEMA))
TYPOS = st.builds(lambda key, at: key[:at] + key[at + 1 :], KEYS, st.integers(0, 6))


def fit(key: str) -> st.SearchStrategy:
    """Values that a key may have; often they are at the ends of its range."""
    default = SCHEMA[key]
    if key in CHOICES:
        return st.sampled_from(list(CHOICES[key]))
    if isinstance(default, bool):
        return st.booleans()
    if key == "seed":
        return st.integers(-(2**31) + 1, 2**31 - 1)
    if key in RANGES:
        low, high = RANGES[key]
        size = key.startswith(("model.", "data.", "max_segments"))  # arrays must not be enormous
        high = min(high, max(4 * default, low + 4) if size else 2**31 - 1)
        if key in MULTIPLES_OF_32:
            return st.sampled_from([32, 64, 96])
        whole = isinstance(default, int)
        numbers = st.integers(int(low), int(high)) if whole else st.floats(low, high)
        return st.one_of(st.sampled_from([type(default)(low), type(default)(high)]), numbers)
    return st.just(default)


# These keys keep values with which a step is traced within seconds. All others are drawn.
FIXED = ("model.backbone_width", "data.crop_size", "data.name", "data.shapes.", "accumulate_steps")
FREE = [k for k in SCHEMA if not k.startswith(FIXED) and not k.endswith("batch_size")]


def problems_of(overrides: dict[str, object], num_devices: int = 1) -> tuple[str, ...]:
    """What is wrong with a config, in sentences; () if nothing is."""
    config = tiny.config(data__name="shapes", data__labeled_split="a", data__unlabeled_split="b")
    config.unlock()
    for key, value in overrides.items():
        *groups, name = key.split(".")
        at = config
        for group in groups:
            at = at[group]
        with at.ignore_type():
            at[name] = value
    try:
        validate(config, num_devices)
    except ConfigError as error:
        return error.problems
    return ()


@settings(EXAMPLES, max_examples=400)
@given(st.dictionaries(KEYS, ANYTHING, min_size=1, max_size=4), st.integers(1, 8))
def test_any_values_are_accepted_or_refused_by_name(overrides, num_devices):
    problems = problems_of(overrides, num_devices)
    for problem in problems:
        assert isinstance(problem, str) and len(problem) > 20
        names = (*overrides, "max_segments", "batch_size", "data.unlabeled_split", "warmup_steps")
        assert any(name.rpartition(".")[2] in problem for name in names), problem


@settings(EXAMPLES, max_examples=50)
@given(TYPOS)
def test_a_misspelt_key_is_refused_with_the_right_one(key):
    if key in SCHEMA or key.count(".") != key.strip(".").count(".") or ".." in key:
        return
    if any(k.startswith(f"{key}.") or key.startswith(f"{k}.") for k in SCHEMA):
        return
    groups = key.split(".")[:-1]
    if groups and not any(k.startswith(".".join(groups) + ".") for k in SCHEMA):
        return  # refused by the command line, which is tested below
    assert any(problem.startswith("unknown key") for problem in problems_of({key: 1}))


@pytest.mark.slow
@settings(EXAMPLES, max_examples=4)
@given(st.data())
def test_what_is_accepted_can_be_traced(data):
    keys = data.draw(st.lists(st.sampled_from(FREE), min_size=1, max_size=6, unique=True))
    overrides = {key: data.draw(fit(key), label=key) for key in keys}
    if problems_of(overrides):
        return
    config = tiny.config(data__name="shapes", **{k.replace(".", "__"): overrides[k] for k in keys})
    model, optimizer = build_model(config), create_optimizer(config)
    state = jax.eval_shape(lambda: initial_state(model, optimizer, config))
    unlabeled = 8 if config.unsup_weight > 0 else 0
    batch = tiny.batch(1, unlabeled=unlabeled)
    jax.eval_shape(parallel_train_step(model, optimizer, config), state, batch)


@pytest.mark.slow
def test_the_command_line_refuses_in_one_line(runs: Runs):
    runs.finish(runs.scratch / "fuzz", "--mode=prepare")
    seen = []

    @settings(EXAMPLES, max_examples=10)
    @given(
        st.one_of(KEYS, TYPOS),
        st.one_of(
            NUMBERS.map(str),
            st.text(st.characters(codec="ascii", exclude_characters="\x00"), max_size=6),
            st.sampled_from(["True", "none", "[1", "0.5,1.0", "0.5,,1", "1e-4", "1_000", "0x10"]),
        ),
    )
    def check(key, value):
        name = f"fuzz_{len(seen)}"
        run = runs.start(runs.scratch / name, "--mode=check", f"--config.{key}={value}")
        status, output = run.wait(), run.output()
        seen.append(status)
        assert status in (0, 1), output
        assert "Traceback" not in output, (key, value, output)
        if status:
            assert output.strip().splitlines()[-1].startswith("error: "), (key, value, output)
        assert not (runs.scratch / name).exists()

    check()
    assert {0, 1} <= set(seen)
