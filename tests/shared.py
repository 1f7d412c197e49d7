"""Data sets and lists that lie beside the repository, where somebody put them."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[2] / "shared"


def shared(name: str) -> Path:
    """A folder of ../shared. A test that asks for one that is not there is skipped."""
    folder = _SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder
