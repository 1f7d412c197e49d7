"""rc2l_jax/run/config.py: a config that cannot run is refused with key, value and remedy."""

from __future__ import annotations

import pytest
from ml_collections import ConfigDict

from configs import base
from rc2l_jax.run.config import ConfigError, dotted, nearest_key, validate


def runnable() -> ConfigDict:
    config = base.get_config()
    config.data.name = "shapes"
    config.data.labeled_split = "train#16@0"
    config.data.unlabeled_split = "train#rest16@0"
    return config


def changed(changes: dict) -> ConfigDict:
    config = runnable()
    with config.unlocked(), config.ignore_type():
        for key, value in changes.items():
            *groups, name = key.split(".")
            holder = config
            for group in groups:
                holder = holder[group]
            holder[name] = value
    return config


def problems(config: ConfigDict, num_devices: int = 1) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as error:
        validate(config, num_devices)
    assert "\n" not in str(error.value)
    return error.value.problems


def test_the_defaults_run_once_a_data_set_is_named():
    validate(runnable(), num_devices=8)
    assert {p.split()[0] for p in problems(base.get_config())} == {
        "data.name",
        "data.labeled_split",
        "data.unlabeled_split",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rat": 1.0}, "unknown key 'learning_rat': did you mean 'learning_rate'?"),
        (
            {"model.num_querys": 3},
            "unknown key 'model.num_querys': did you mean 'model.num_queries'",
        ),
        ({"num_queries": 3}, "unknown key 'num_queries': did you mean 'model.num_queries'?"),
        ({"data": ConfigDict()}, "missing key 'data.crop_size'"),
        ({"batch_size": "4"}, "batch_size = '4' is str, not int"),
        ({"data.name": 3}, "data.name = 3 is int, not str"),
        ({"batch_size": 4.0}, "batch_size = 4.0 is float, not int"),
        ({"batch_size": True}, "batch_size = True is bool, not int"),
        ({"ignore_void": 1}, "ignore_void = 1 is int, not bool"),
        ({"learning_rate": None}, "learning_rate = None is NoneType, not float"),
        ({"matcher": "gpu"}, "matcher = 'gpu' is not one of host, device"),
        ({"dtype": "float16"}, "dtype = 'float16' is not one of float32, bfloat16"),
        ({"model.norm": "layer"}, "model.norm = 'layer' is not one of"),
        ({"model.stem": "wide"}, "model.stem = 'wide' is not one of"),
        ({"model.backbone": "vgg"}, "model.backbone = 'vgg' is not one of"),
        ({"unsup.union": "sum"}, "unsup.union = 'sum' is not one of"),
        ({"unsup.contrast_denominator": "x"}, "unsup.contrast_denominator = 'x' is not one of"),
        ({"unsup_weight": -1.0}, "unsup_weight = -1.0 must be at least 0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan must be at least 0"),
        ({"learning_rate": float("inf")}, "learning_rate = inf must be at least 0"),
        ({"ema_decay": 1.5}, "ema_decay = 1.5 must be between 0 and 1"),
        ({"pseudo.score_threshold": 2.0}, "pseudo.score_threshold = 2.0 must be between 0 and 1"),
        ({"data.num_classes": 255}, "data.num_classes = 255 must be between 2 and 254"),
        ({"unsup.rmc_temperature": 0.0}, "unsup.rmc_temperature = 0.0 must be greater than 0"),
        ({"data.prepared_short_edge": 31}, "data.prepared_short_edge = 31 must be at least 32"),
        ({"log_every_steps": 0}, "log_every_steps = 0 must be at least 1"),
        ({"init_queries": "last"}, "init_queries = 'last' is not one of first, fresh"),
        ({"data.crop_size": 500}, "data.crop_size = 500 must be a multiple of 32"),
        ({"eval.scales": ()}, "eval.scales = () must be one or more numbers greater than 0"),
        ({"eval.scales": (1.0, 0)}, "eval.scales = (1.0, 0) must be one or more numbers"),
        ({"eval.scales": ("1",)}, "eval.scales = ('1',) must be one or more numbers"),
        ({"eval.scales": 1.0}, "eval.scales = 1.0 is float, not tuple"),
        ({"eval.window": 500}, "eval.window = 500 must be a multiple of 32"),
        ({"eval.window_stride": 1.5}, "eval.window_stride = 1.5 must be between 0.1 and 1"),
        ({"eval.max_shapes": 0}, "eval.max_shapes = 0 must be at least 1"),
        ({"model.num_heads": 7}, "model.hidden_dim = 256 is not a multiple of model.num_heads = 7"),
        ({"model.hidden_dim": 8 * 3 + 2, "model.num_heads": 1}, "must be a multiple of 4"),
        ({"cutmix.min_area": 0.6}, "cutmix.min_area = 0.6 is above cutmix.max_area = 0.5"),
        ({"warmup_steps": 120_000}, "warmup_steps = 120000 must be below num_steps"),
        ({"data.unlabeled_split": ""}, "data.unlabeled_split is empty with unsup_weight = 2.0"),
    ],
)
def test_one_problem_is_reported_once_with_its_key(changes, words):
    found = problems(changed(changes))
    assert any(words in problem for problem in found), found
    # An empty group lacks many keys; every other case has exactly one problem.
    assert len(found) == 1 or "data" in changes


@pytest.mark.parametrize(
    ("changes", "num_devices", "words"),
    [
        (
            {"batch_size": 12},
            8,
            "batch_size = 12 cannot be shared equally by 8 devices: take a multiple of 8, or one "
            "of 1, 2, 3, 4, 6, 12 devices",
        ),
        ({"unlabeled_batch_size": 20}, 8, "unlabeled_batch_size = 20 cannot be shared equally"),
        (
            {"batch_size": 8},
            16,
            "batch_size = 8 leaves some of 16 devices without an image: it must be at least 16",
        ),
        (
            {"accumulate_steps": 3},
            4,
            "the 12 parts of 4 devices times accumulate_steps = 3: take a multiple of 12",
        ),
        ({"unlabeled_batch_size": 1}, 1, "CutMix one image at a time"),
        ({"unlabeled_batch_size": 4, "accumulate_steps": 4}, 1, "take at least 8, or set cutmix"),
        ({"unlabeled_batch_size": 0}, 1, "which needs unlabelled images"),
        ({"unlabeled_batch_size": 0, "cutmix.probability": 0.0}, 1, "which needs unlabelled"),
    ],
)
def test_batches_must_fit_the_devices(changes, num_devices, words):
    changes = {"batch_size": 16, "unlabeled_batch_size": 16} | changes
    found = problems(changed(changes), num_devices)
    assert words in found[0]
    assert len(found) == (2 if "accumulate_steps" in changes and num_devices > 1 else 1)


def test_without_training_no_batch_must_fit_the_devices():
    changes = {"batch_size": 12, "unlabeled_batch_size": 0, "eval_batch_size": 9}
    validate(changed(changes), num_devices=8, trains=False)


def test_evaluations_batch_and_segments_may_be_any_number():
    validate(changed({"eval_batch_size": 9, "max_segments": 500}), num_devices=16)


def test_what_supervised_training_does_not_use_is_not_demanded():
    changes = {"unsup_weight": 0.0, "data.unlabeled_split": "", "unlabeled_batch_size": 1}
    validate(changed(changes), num_devices=8)
    validate(changed({"cutmix.probability": 0.0, "unlabeled_batch_size": 8}), num_devices=8)


def test_a_whole_number_is_fine_where_a_float_is_asked_for():
    validate(changed({"learning_rate": 1}), num_devices=1)


def test_scales_may_be_whole_numbers_and_come_from_json():
    validate(changed({"eval.scales": (0.5, 1)}), num_devices=1)
    validate(changed({"eval.scales": [0.5, 1.0]}), num_devices=1)


def test_all_problems_are_in_one_message():
    config = changed({"matcher": "gpu", "batch_size": "x", "nonsense": 1, "data.crop_size": 33})
    with pytest.raises(ConfigError) as error:
        validate(config, num_devices=1)
    for key in ("matcher", "batch_size", "nonsense", "data.crop_size"):
        assert key in str(error.value)
    assert len(error.value.problems) == 4


def test_every_number_of_the_base_config_is_checked():
    """Without bounds on a weight or size, a run with a mistyped number would start in silence."""
    unbounded = {"seed", "data.shapes.seed"}
    for key, value in dotted(runnable()).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and key not in unbounded:
            found = problems(changed({key: type(value)(-1)}))
            assert any(key in problem for problem in found), key


def test_nearest_key():
    assert nearest_key("modle.num_queries") == "model.num_queries"
    assert nearest_key("zzzzzzz") is None
