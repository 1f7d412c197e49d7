"""docs/extending/: each diff applies to this tree, and what it adds works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import replicas

from data import masks, records

ROOT = Path(__file__).parents[1]
PAGE, DIFFS = ROOT / "docs" / "extending.md", ROOT / "docs" / "extending"


def test_the_page_names_each_diff_and_repeats_none():
    page = PAGE.read_text()
    assert {path.stem for path in DIFFS.iterdir()} == {"dataset", "backbone", "loss"}
    for path in DIFFS.iterdir():
        assert f"](extending/{path.name})" in page
        assert f"`git apply docs/extending/{path.name}`" in page
    assert "```diff" not in page and "@@" not in page


def extended(tmp_path: Path, name: str) -> Path:
    """A copy of the tree to which a diff is applied, as a reader of the page would do it."""
    tree = tmp_path / "tree"
    for folder in ("configs", "data", "rc2l_jax", "tests"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", tree)
    # Called from a git hook, git would otherwise apply the diff to the hook's repository.
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env["GIT_CEILING_DIRECTORIES"] = str(tmp_path)
    command = ["git", "apply", str(DIFFS / f"{name}.diff")]
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}\nbring docs/extending/{name}.diff up to date"
    return tree


def python(tree: Path, *arguments: str) -> str:
    """Runs Python in the tree; returns what it prints."""
    env = os.environ | {"PYTHONPATH": f"{tree}{os.pathsep}{tree / 'tests'}", "JAX_PLATFORMS": "cpu"}
    env["XLA_FLAGS"] = env.get("XLA_FLAGS", "").replace("device_count=8", "device_count=1")
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def loveda(root: Path) -> np.ndarray:
    """Writes 4 + 2 + 3 images in LoveDA's layout; returns the mask that all labelled ones have."""
    rng, mask = np.random.default_rng(0), np.arange(8, dtype=np.uint8).repeat(4)[None].repeat(32, 0)
    for split, count in (("Train", 4), ("Val", 2), ("Test", 3)):
        for number in range(count):
            folder = root / split / ("Rural" if number % 2 else "Urban")
            image = rng.integers(0, 256, (*mask.shape, 3), np.uint8)
            files = {"images_png": image, "masks_png": mask}
            for kind, array in files.items() if split != "Test" else [("images_png", image)]:
                (folder / kind).mkdir(parents=True, exist_ok=True)
                (folder / kind / f"{number}.png").write_bytes(replicas.encode(array))
    return mask


@pytest.mark.slow
def test_a_new_data_set(tmp_path):
    mask, prepared = loveda(tmp_path / "LoveDA"), tmp_path / "prepared"
    texts = {
        "name": "loveda", "dir": tmp_path / "LoveDA", "num_classes": 7, "prepared_dir": prepared,
        "labeled_split": "train#2@0", "unlabeled_split": "train#rest2@0+test",
    }  # fmt: skip
    overrides = [f"--config.data.{key}={value}" for key, value in texts.items()]
    command = ["main.py", "--config=configs/folder.py", "--mode=check", *overrides]
    printed = python(extended(tmp_path, "dataset"), *command)
    assert "labeled: 2 examples" in printed and "unlabeled: 5 examples" in printed
    assert "config and data are fine" in printed and "warning" not in printed

    copies = records.prepared_paths(str(prepared), "loveda")
    assert set(copies) == {"train", "val", "test"}
    train, test = (records.open_records(copies[split][0]) for split in ("train", "test"))
    assert [e.id for e in train.examples] == ["Rural/1", "Rural/3", "Urban/0", "Urban/2"]
    for record in train.read([0, 3]):
        ids = masks.decode_mask(record["label"])
        np.testing.assert_array_equal(ids, np.where(mask, mask - 1, 255))  # 0 is void
    assert all("missing mask" in e.label_error for e in test.examples)


BACKBONE = """
import jax, jax.numpy as jnp, numpy as np, tiny
from rc2l_jax.run.config_values import CHOICES
from rc2l_jax.models import build_model, convnext
from rc2l_jax.method.optimizer import parameter_groups, parameter_rules

assert "convnext_t" in CHOICES["model.backbone"]
convnext.BACKBONES["convnext_t"] = (1, 1, 1, 1)  # which compiles sooner
convnext.WIDTH = 4
config = tiny.config(model__backbone="convnext_t", remat=True)
model = build_model(config, axis_name=None)
images = 10 * jax.random.normal(jax.random.key(0), (2, 64, 96, 3))
params = jax.jit(lambda: model.init(jax.random.key(1), images, train=False))()["params"]
parameter_groups(params, parameter_rules(config))  # every parameter has a rule

backbone = convnext.ConvNeXt("convnext_t", jnp.float32, True)
apply = lambda p, x: backbone.apply({"params": p}, x, train=True)
features = jax.eval_shape(apply, params["backbone"], images)
assert [f.shape[1:] for f in features] == [(16, 24, 4), (8, 12, 8), (4, 6, 16), (2, 3, 32)]

@jax.jit
def run(params, images, extent):
    def loss(params):
        out = model.apply({"params": params}, images, train=True, extent=extent)
        return (out.mask_logits ** 2).mean(), out
    return jax.grad(loss, has_aux=True)(params)

extent = jnp.array([[64, 64], [32, 96]])
grads, out = run(params, images, extent)
assert out.mask_logits.shape == (2, 2, 6, 16, 24)
for path, grad in jax.tree_util.tree_leaves_with_path(grads["backbone"]):
    assert np.isfinite(grad).all() and (grad != 0).any(), path

# What lies outside an image's extent changes nothing inside.
other = images.at[0, :, 64:].set(99.0).at[1, 32:].set(-99.0)
again = run(params, other, extent)[1]
for index, (height, width) in enumerate([(16, 16), (8, 24)]):
    a, b = (x.mask_logits[:, index, :, :height, :width] for x in (out, again))
    np.testing.assert_allclose(a, b, atol=1e-4)
"""


@pytest.mark.slow
def test_a_new_backbone(tmp_path):
    python(extended(tmp_path, "backbone"), "-c", BACKBONE)


LOSS = """
import jax, jax.numpy as jnp, numpy as np, tiny
from rc2l_jax.training.averages import summarize
from rc2l_jax.method.state import create_train_state
from rc2l_jax.training.devices import parallel_train_step, replicate

alone = {f"unsup__{name}_weight": 0.0 for name in ("rcc", "smc", "rmc", "rfc")}
alone |= {"unsup__boundary_weight": 1.0, "unsup_start_step": 1, "data__color": False}
config = tiny.config(**alone, model__num_decoder_layers=1)
model, optimizer, state = create_train_state(config)
initial = jax.tree.map(np.array, state)  # the step takes its state away
step = parallel_train_step(model, optimizer, config)

def run(start):
    state = jax.tree.map(jnp.array, initial.replace(step=np.int32(start)))
    metrics = step(replicate(state, 1), tiny.batch(1))[1]
    return summarize(jax.tree.map(np.asarray, metrics))

# Of the same parameters and labelled images: at step 0 the unlabelled loss weighs nothing yet.
without, with_it = run(0), run(1)
assert without["unsup_weight"] == 0 < with_it["unsup_weight"]
assert 0 < with_it["loss/unlabel_boundary"] < 1
np.testing.assert_allclose(with_it["loss/unlabel"], with_it["loss/unlabel_boundary"], rtol=1e-6)
np.testing.assert_allclose(without["loss/label"], with_it["loss/label"], rtol=1e-5)
change = with_it["grad_norm"] / without["grad_norm"] - 1
assert abs(change) > 1e-4, change
print(with_it["loss/unlabel_boundary"], change)

# On masks that are right it is nothing, and what is unknown changes nothing.
from rc2l_jax.method.losses.region import boundary_consistency
from rc2l_jax.structs import Assignment, Segments
masks = jnp.zeros((1, 1, 6, 6), bool).at[:, :, 1:4, 2:5].set(True)
known = jnp.ones((1, 6, 6), bool).at[:, :, 5].set(False)
given = Assignment(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool))
one = jnp.ones((1, 1))
segments = Segments(one.astype(int), masks, one.astype(bool), one, known)
right = jnp.where(masks, 30.0, -30.0)
assert boundary_consistency(right, segments, given)[0] < 1e-5
assert boundary_consistency(right.at[..., 5].set(30.0), segments, given)[0] < 1e-5
assert boundary_consistency(jnp.roll(right, 2, axis=2), segments, given)[0] > 0.1
"""


@pytest.mark.slow
def test_a_new_loss(tmp_path):
    python(extended(tmp_path, "loss"), "-c", LOSS)
