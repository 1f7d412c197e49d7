"""What an installation holds; and that version, licence and address are where they belong."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rc2l_jax import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = ("configs", "data", "rc2l_jax")
# Run from another folder, finds what `rc2l_jax` imports. What needs TensorFlow is only looked up,
# not imported, to save time.
IMPORTS = """
import importlib.util, site, sys
site.addsitedir(sys.argv[1])
from rc2l_jax.run.config import validate
import configs.ablations.voc_aug_quarter_smc
names = "data.catalog", "data.voc_semseg.sbd", "rc2l_jax.method.losses.region", "configs.shapes"
for name in names:
    print(importlib.util.find_spec(name).origin)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the tree to build from, as a build leaves files behind."""
    pytest.importorskip("setuptools", minversion="77")
    tree = tmp_path_factory.mktemp("build") / "tree"
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    return tree


def build(tree: Path, kind: str, output: Path) -> zipfile.ZipFile:
    """Builds a wheel as pip does; `kind` is "wheel" or "editable"."""
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(output)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(output.glob("*.whl")))


@pytest.mark.slow
def test_a_wheel_holds_every_module_and_the_licence(tree, tmp_path):
    wheel = build(tree, "wheel", tmp_path)
    modules = {f.relative_to(tree).as_posix() for p in PACKAGES for f in (tree / p).rglob("*.py")}
    assert {name for name in wheel.namelist() if name.endswith(".py")} == modules
    page = "rc2l_jax/reports/page.html"
    assert wheel.read(page) == (ROOT / page).read_bytes()
    info = f"rc2l_jax-{__version__}.dist-info"
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    lines = wheel.read(f"{info}/METADATA").decode().splitlines()
    assert {f"Version: {__version__}", "License-Expression: Apache-2.0"} < set(lines)


@pytest.mark.slow
def test_an_editable_installation_is_used_from_any_folder(tree, tmp_path):
    build(tree, "editable", tmp_path).extractall(tmp_path / "site")
    command = [sys.executable, "-c", IMPORTS, str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(Path(line).is_relative_to(tree) for line in done.stdout.splitlines())


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == __version__


def test_the_licence_is_the_one_that_is_declared():
    text = " ".join((ROOT / "LICENSE").read_text().split())
    assert text.startswith("Apache License Version 2.0, January 2004")
    for file in ("pyproject.toml", "CITATION.cff"):
        assert "Apache-2.0" in (ROOT / file).read_text()


def test_only_pyproject_names_an_address_of_the_project():
    """There is no address yet; CONTRIBUTING.md, "Publishing", says where it goes."""
    own = re.compile(
        r"(?:github|gitlab)\.com[/:](?:rc2l|[\w.-]+/rc2l)|colab\.research\.google\.com/github/",
        re.IGNORECASE,
    )
    folders = (
        ".ci", ".github", "benchmarks", "configs", "data", "docs", "notebooks", "rc2l_jax",
        "studies", "tests",
    )  # fmt: skip
    files = [*ROOT.glob("*"), *(file for x in folders for file in (ROOT / x).rglob("*"))]
    texts = {
        file: file.read_text(errors="ignore")
        for file in files
        if file.is_file() and file.suffix not in (".png", ".pyc") and file.name != "pyproject.toml"
    }
    assert len(texts) > 100
    assert not [str(file.relative_to(ROOT)) for file, text in texts.items() if own.search(text)]
    for example in ("https://{}.com/somebody/rc2l_jax", "git@{}.com:rc2l-people/code"):
        assert own.search(example.format("github")), "or nothing is ever found"
