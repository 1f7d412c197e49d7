"""README.md, docs/ and the other documents: the files, links, modules and modes they name exist."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHANGELOG = ROOT / "CHANGELOG.md"  # not tested, as it also names what is gone
DOCUMENTS = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"),
     *ROOT.glob("notebooks/*.ipynb")} - {CHANGELOG}
)  # fmt: skip
NOT_FILES = {"data/bad_examples"}  # the name of a curve in TensorBoard

document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def text_of(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells)


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def added_by_a_diff() -> set[str]:
    diffs = (path.read_text() for path in (ROOT / "docs" / "extending").glob("*.diff"))
    return {name for diff in diffs for name in re.findall(r"^\+\+\+ b/(.+)$", diff, re.MULTILINE)}


def spelled_out(path: str) -> Iterator[str]:
    """Expands braces: `a_{b,c}.py` gives `a_b.py` and `a_c.py`."""
    parts = [part.split(",") for part in re.split(r"[{}]", path)]
    return map("".join, itertools.product(*parts))


def test_readme_can_be_read_at_once():
    assert (ROOT / "README.md").read_text().count("\n") <= 160


@document
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text_of(path))):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@document
def test_files_that_are_named_exist(path):
    folders = "benchmarks|configs|data|docs|notebooks|rc2l_jax|studies|tests"
    named = re.findall(rf"(?<![\w./-])((?:{folders})/[\w./{{}},*-]*[\w/*}}])", text_of(path))
    absent = {
        name
        for name in itertools.chain.from_iterable(map(spelled_out, named))
        if not any(ROOT.glob(name)) and name not in added_by_a_diff() | NOT_FILES
    }
    assert not absent


@document
def test_modules_that_are_named_exist(path):
    for name in re.findall(r"\brc2l_jax(?:\.[a-z_]\w*)+", text_of(path)):
        file = ROOT / name.replace(".", "/")  # the name of a module, or of something in a module
        candidates = (file.with_suffix(".py"), file.parent.with_suffix(".py"), file / "__init__.py")
        assert any(candidate.is_file() for candidate in candidates), name


@document
def test_modes_that_are_named_exist(path):
    (modes,) = re.findall(r"^MODES = \((.+?)\)", (ROOT / "main.py").read_text(), re.M | re.DOTALL)
    assert set(re.findall(r"--mode=(\w+)", text_of(path))) <= set(re.findall(r'"(\w+)"', modes))


def test_readme_and_the_documents_lead_to_each_document():
    linked = set()
    for path in DOCUMENTS:
        links = re.findall(r"\]\(([^)#\s]+)", prose(text_of(path)))
        linked |= {(path.parent / link).resolve() for link in links if path.name == "README.md"}
    assert {path for path in DOCUMENTS if path.name != "README.md"} <= linked


def test_what_moved_is_where_the_table_says():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.partition("### What moved where")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \| (.+?) \|$", section, re.MULTILINE)
    still_there, missing = [], []
    for before, now in rows:
        old, new = (re.findall(r"`([\w/]+(?:\.py|/))`", cell) for cell in (before, now))
        folder = re.search(r" in `(\w+)/`$", before)  # or `rc2l_jax/` itself
        if folder:
            old = old[:-1]
        parent = ROOT / (folder[1] if folder else "rc2l_jax")
        still_there += [name for name in old if name.endswith(".py") and (parent / name).exists()]
        if "same names" in now:
            new = [new[0] + name for name in old]
        missing += [x for x in new if not any((y / x).exists() for y in (ROOT / "rc2l_jax", ROOT))]
    assert len(rows) > 20 and not still_there and not missing
