"""Data sets and published lists that may lie beside the repository, in ../shared."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[2] / "shared"


def shared(name: str) -> Path:
    """The path of a folder in ../shared; skips the test if the folder is not there."""
    folder = _SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder
