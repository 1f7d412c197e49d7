"""configs/: the header, `--mode=check` on replicas, the model and a batch of every experiment."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import re

import jax
import ml_collections
import numpy as np
import pytest
import replicas
from shared import shared
from test_main import ROOT

from data.splits import Subsets
from rc2l_jax.input_pipeline import train_batches
from rc2l_jax.input_pipeline.subsets import open_subsets
from rc2l_jax.models.maskformer import build_model
from rc2l_jax.run.config import validate
from rc2l_jax.training import check

BASES = ("__init__", "base", "cells", "dinov2", "paper", "small")
FILES = {
    file.relative_to(ROOT).as_posix(): file
    for file in sorted((ROOT / "configs").rglob("*.py"))
    if file.stem not in BASES
}
# Tables 1 and 2: (number of labelled images, mIoU of RC²L, mIoU of the supervised baseline).
CELLS = {
    "voc_train_half": (732, 77.06, 67.67),
    "voc_train_quarter": (366, 72.24, 60.63),
    "voc_train_eighth": (183, 68.87, 53.03),
    "voc_train_sixteenth": (92, 65.33, 40.31),
    "voc_train_full": (1464, 79.33, 73.71),
    "voc_aug_half": (5291, 80.43, 76.02),
    "voc_aug_quarter": (2646, 79.71, 75.23),
    "voc_aug_eighth": (1323, 77.49, 72.87),
    "voc_aug_sixteenth": (662, 75.56, 67.12),
    "cityscapes_quarter": (744, 76.47, 73.94),
    "cityscapes_eighth": (372, 74.04, 71.53),
}
COCO = {
    "voc_train_quarter", "voc_train_eighth", "voc_train_sixteenth", "voc_aug_sixteenth",
    "cityscapes_quarter", "cityscapes_eighth",
}  # fmt: skip
# Tables 3 and 5: (mIoU on VOC Train 1/2, mIoU on VOC Aug 1/4). Table 4 is in the test.
ABLATIONS = {
    "consistency": (69.37, 75.26),
    "smc": (73.26, 76.58),
    "smc_rcc": (76.07, 77.89),
    "smc_rcc_rmc": (76.85, 78.92),
    "queries_100": (74.01, 75.83),
    "queries_20": (76.18, 78.37),
}
WEIGHTS = {"smc": 20.0, "rcc": 1.0, "rmc": 4.0, "rfc": 4.0}


def load(name):
    spec = importlib.util.spec_from_file_location("experiment", FILES[name])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data set -> its replica, with the official number of images; "prepared" -> the records."""
    root = tmp_path_factory.mktemp("data")
    voc = replicas.voc_ids({"train": 1464, "val": 1449, "aug": 9118})
    replicas.write_tar(
        root / "voc" / "VOCtrainval_11-May-2012.tar", replicas.voc_files(voc), "VOCdevkit/VOC2012"
    )
    replicas.write_tar(
        root / "voc" / "benchmark.tgz", replicas.sbd_files(voc), "benchmark_RELEASE/dataset"
    )
    city = replicas.cityscapes_ids({"train": 2975, "val": 500})
    replicas.write_zip(
        root / "city" / "leftImg8bit_trainvaltest.zip", replicas.leftimg8bit_files(city)
    )
    replicas.write_zip(root / "city" / "gtFine_trainvaltest.zip", replicas.gtfine_files(city))
    own = {"train": 4, "val": 3, "unlabeled": 5}
    for split, count in own.items():
        for i in range(count):
            name = f"{split}/photo {i}"
            files = [(f"images/{name}.jpg", replicas.image_of(name))]
            if split != "unlabeled":
                files.append((f"labels/{name}.png", replicas.encode(replicas.class_mask(1))))
            replicas.write_folder(root / "own", files)
    (root / "own" / "classes.txt").write_text("background\nthing")
    return {
        "voc_semseg": root / "voc",
        "cityscapes_semseg": root / "city",
        "folder": root / "own",
        "shapes": "",
        "prepared": root / "prepared",
    }


@functools.cache
def model_shapes(described):
    """Shapes of predictions and variables of the model that a config (as JSON) describes."""
    config = ml_collections.ConfigDict(json.loads(described))
    model = build_model(config)
    images = jax.ShapeDtypeStruct((1, config.data.crop_size, config.data.crop_size, 3), np.float32)
    return jax.eval_shape(
        lambda key, x: model.init_with_output(key, x, train=False), jax.random.key(0), images
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_check_model_and_batch(command_line, capsys, data, name):
    config = load(name).get_config()
    folder = shared("camvid") if config.data.name == "camvid" else data[config.data.name]
    overrides = {"data.dir": str(folder), "data.prepared_dir": str(data["prepared"])}
    if name.startswith("configs/studies/voc"):  # is for a folder of other classes, with lists
        overrides |= {"data.num_classes": 2, "data.labeled_split": "train"}
    elif name == "configs/studies/suggested.py":  # wants 84 photos of many
        overrides["data.labeled_split"] = "train#2@0"
    flags = [f"--config.{key}={value}" for key, value in overrides.items()]
    command_line([f"--config={name}", "--mode=check", *flags])
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "config and data are fine"
    if config.data.num_labeled:
        assert f"labeled: {config.data.num_labeled} examples (" in printed

    config.update_from_flattened_dict(overrides)
    batch = next(train_batches.train_batches(config, open_subsets(config), 0, 1))
    crop = config.data.crop_size
    semi = config.unlabeled_batch_size if config.unsup_weight else 0
    assert batch.image.shape == (1, config.batch_size, crop, crop, 3)
    assert batch.unlabeled_image.shape == (1, semi, crop, crop, 3)
    assert set(np.unique(batch.label)) <= {*range(config.data.num_classes), 255}

    described = {"model": config.model.to_dict(), "dtype": config.dtype, "remat": config.remat}
    described["data"] = {"num_classes": config.data.num_classes, "crop_size": crop}
    predictions, _ = model_shapes(json.dumps(described))
    queries = config.model.num_queries
    layers = config.model.num_decoder_layers
    assert predictions.class_logits.shape == (layers, 1, queries, config.data.num_classes + 1)
    assert predictions.mask_logits.shape == (layers, 1, queries, crop // 4, crop // 4)


@pytest.mark.parametrize("name", FILES)
def test_the_header_gives_the_command(name):
    text = " ".join(load(name).__doc__.replace("\\\n", " ").split())
    assert f"python main.py --config={name} --workdir=runs/" in text
    if name.startswith(("configs/voc_", "configs/cityscapes")):  # the cells of the paper's tables
        for word in ("Hardware: ", "Time: ", "Score: mIoU ", "not measured here", "Table "):
            assert word in text


# Headers say "8 V100 GPUs", "4 V100", "one GPU" or "two CPU cores". All cores are one device.
NUMBERS = {"one": 1, "two": 2}


@pytest.mark.parametrize("name", FILES)
def test_a_config_fits_the_hardware_that_its_header_names(name):
    module = load(name)
    found = re.search(r"Hardware: (\w+) (\w+)", module.__doc__)
    devices = 1
    if found and found.group(2) != "CPU":
        devices = NUMBERS.get(found.group(1)) or int(found.group(1))
    if name.startswith(("configs/voc_", "configs/cityscapes")):  # the cells of the paper's tables
        assert devices in (4, 8)
    validate(module.get_config(), devices)


def test_every_command_of_the_pods_document_fits_its_devices():
    text = (ROOT / "docs" / "pods.md").read_text()
    sections = {part.splitlines()[0]: part for part in text.split("\n## ")[1:]}

    def product(pattern, section):
        return math.prod(int(n) for n in re.findall(r"\d+", re.search(pattern, section).group(1)))

    devices = {
        # Half of the TPU cores that the name counts: a chip of two cores is one device.
        "TPU VM": product(r"v4-(\d+)", sections["TPU VM"]) // 2,
        "SLURM with GPUs": product(r"--(nodes=\d+ --ntasks-per-node=\d+)", text),
        "GKE": product(r"gke-tpu-topology: (\S+)", sections["GKE"]),
    }
    assert devices == {"TPU VM": 16, "SLURM with GPUs": 8, "GKE": 16}
    for title, count in devices.items():
        names = set(re.findall(r"--config=(configs/\w+\.py)", sections[title]))
        assert names
        for name in names:
            validate(load(name).get_config(), count)


def test_every_cell_of_tables_1_and_2_has_a_config_and_a_baseline():
    for cell, (labels, score, baseline) in CELLS.items():
        module = load(f"configs/{cell}.py")
        supervised = load(f"configs/{cell}_supervised.py")
        assert f"mIoU {score:.2f} in the paper" in module.__doc__
        assert f"mIoU {baseline:.2f} in the paper" in supervised.__doc__
        config = module.get_config()
        assert config.data.num_labeled == labels
        assert config.num_steps == (160_000 if "aug" in cell else 120_000)
        assert config.unsup_weight == (2.0 if "voc_train" in cell else 1.0)
        assert config.data.crop_size == (768 if "cityscapes" in cell else 512)
        assert ("coco" in config.init_from) == (cell in COCO)
        assert config.model.num_queries == 50
        assert {term: config.unsup[f"{term}_weight"] for term in WEIGHTS} == WEIGHTS
        config.unsup_weight = 0.0
        assert supervised.get_config() == config


def test_every_cell_of_voc_train_is_there_on_dinov2():
    cells = [cell for cell in CELLS if cell.startswith("voc_train")]
    assert len(cells) == 5
    for cell in cells:
        module = load(f"configs/{cell}_dinov2.py")
        assert f"with ResNet-101 it has {CELLS[cell][1]:.2f}." in module.__doc__
        config = module.get_config()
        assert (config.model.backbone, config.init_from) == ("dinov2_base", "facebook/dinov2-base")
        # UniMatch V2: 5e-6 for the encoder, 40 times as much for the rest, weight decay 0.01.
        rates = config.learning_rate * config.backbone_lr_multiplier, config.learning_rate
        np.testing.assert_allclose(rates, (5e-6, 40 * 5e-6), rtol=1e-12)
        assert (config.weight_decay, config.poly_power) == (0.01, 0.9)
        other = load(f"configs/{cell}.py").get_config()
        for key in ("init_from", "learning_rate", "backbone_lr_multiplier", "weight_decay"):
            other[key] = config[key]
        other.model.backbone = config.model.backbone
        assert other == config


def test_the_ablations_change_what_their_tables_say():
    for column, (base, alpha) in enumerate((("voc_train_half", 2.0), ("voc_aug_quarter", 1.0))):
        for name, scores in ABLATIONS.items():
            module = load(f"configs/ablations/{base}_{name}.py")
            assert f"mIoU {scores[column]} in the paper" in module.__doc__
            config = module.get_config()
            validate(config, 1)
            kept = set(name.split("_")) if "smc" in name else set()
            if "queries" in name:
                assert config.model.num_queries == int(name.split("_")[1])
                kept = set(WEIGHTS)
            weights = {term: config.unsup[f"{term}_weight"] for term in WEIGHTS}
            assert weights == {t: w if t in kept else 0.0 for t, w in WEIGHTS.items()}
            assert (config.unsup.consistency_weight > 0) == (name == "consistency")
        scores = {1.0: 75.65, 1.5: 76.60, 2.0: 77.06} if column == 0 else {
            1.0: 79.71, 1.5: 79.15, 2.0: 79.15}  # fmt: skip
        for value, score in scores.items():
            end = "" if value == alpha else f"_alpha_{value:g}".replace(".", "_")
            module = load(f"configs/{'ablations/' if end else ''}{base}{end}.py")
            assert module.get_config().unsup_weight == value
            assert f"{score:.2f} in the paper" in module.__doc__


@pytest.mark.parametrize("name", FILES)
def test_no_config_lets_unlabelled_images_come_too_late(name):
    config, subsets = load(name).get_config(), Subsets((), (), (), ())
    assert not [x for x in check.config_warnings(config, None, subsets) if "whole weight" in x]
    config.unsup_weight, config.num_steps = 1.0, 100
    config.unsup_start_step, config.unsup_ramp_steps = 40, 20
    (warning,) = [x for x in check.config_warnings(config, None, subsets) if "whole weight" in x]
    assert "only from step 60 of 100 on" in warning
