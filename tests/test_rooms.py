"""The order of the folders: no import runs backwards, and former names say where they went."""

from __future__ import annotations

import ast
import graphlib
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rc2l_jax.moved import MOVED

ROOT = Path(__file__).parents[1]
# A file imports only from folders of earlier lines, and from its own. CONTRIBUTING.md shows this
# order, too.
ORDER = (
    ("configs", "data"),
    ("structs",),
    ("models",),
    ("method", "input_pipeline"),
    ("run",),
    ("reports",),
    ("evaluation", "weights"),
    ("training", "prediction"),
    ("suggestion",),
    ("main",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
ABOVE = ("__init__", "moved")  # modules of the package itself: the version, and former names


def modules() -> dict[str, Path]:
    files = [ROOT / "main.py"]
    files += [
        path for folder in ("configs", "data", "rc2l_jax") for path in (ROOT / folder).rglob("*.py")
    ]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


MODULES = modules()


def room_of(module: str) -> str:
    package, *rest = module.split(".")
    return rest[0] if package == "rc2l_jax" and rest else package


def imports(module: str) -> Iterator[str]:
    """The modules of the project that a module imports, also within its functions."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            for candidate in (name, name.rpartition(".")[0]):
                found = next(
                    (x for x in (candidate, f"{candidate}.__init__") if x in MODULES), None
                )
                if found:
                    yield found
                    break


def test_no_import_runs_backwards():
    backwards = []
    for module in MODULES:
        for imported in imports(module):
            mine, other = room_of(module), room_of(imported)
            if mine in ABOVE or other in ABOVE or mine == other:
                continue
            if RANK[other] >= RANK[mine]:
                backwards.append(f"{module} imports {imported}")
    assert len(MODULES) > 100 and not backwards


def test_the_method_imports_the_words_and_the_networks_only():
    rooms = {room_of(x) for m in MODULES if room_of(m) == "method" for x in imports(m)}
    assert rooms == {"method", "models", "structs"}
    words = set(imports("rc2l_jax.structs"))
    assert words == {"data.label_values"}


def test_there_are_no_circles():
    graph = {module: set(imports(module)) - {module} for module in MODULES}
    graph["rc2l_jax.__init__"] = set()  # left out, as every import of the package runs it
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", sorted(MOVED))
def test_a_former_module_says_where_it_went(name):
    with pytest.raises(ImportError, match=rf"^rc2l_jax\.{name} has moved to \w+") as error:
        importlib.import_module(f"rc2l_jax.{name}")
    for place in re.findall(r"[a-z_]+\.[a-z_]+", MOVED[name]) or [MOVED[name]]:
        assert f"rc2l_jax.{place}" in MODULES or f"rc2l_jax.{place}.__init__" in MODULES, error


def test_the_imports_that_documents_showed_say_where_they_went():
    for statement in (
        "from rc2l_jax.networks import open_network",
        "from rc2l_jax.predict import predict_images",
        "from rc2l_jax import exported",
    ):
        with pytest.raises(ImportError, match=r"has moved to (prediction|weights)"):
            exec(statement, {})
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'rc2l_jax\.nothing'"):
        importlib.import_module("rc2l_jax.nothing")
    assert "rc2l_jax.networks" not in sys.modules
