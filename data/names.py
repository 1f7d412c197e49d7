"""Names of files in one form of Unicode.

A Mac writes ü as u and two dots (NFD), other systems write one character (NFC). Both look alike,
and an image and its mask may come from different systems.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from data.errors import DataError


def normal_form(name: str) -> str:
    """The name in the form in which names are compared, NFC."""
    return unicodedata.normalize("NFC", name)


def by_normal_form(names: Iterable[str], where: str) -> dict[str, str]:
    """Names by their normal form.

    Args:
      names: of files.
      where: the folder or archive that holds them, for messages.

    Raises:
      DataError: two of the names have one normal form.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        other = found.setdefault(normal_form(name), name)
        if other != name:
            raise DataError(
                f"{where}: {other!a} and {name!a} look alike, and differ only in how "
                "accents are stored (Unicode NFC and NFD); rename or remove one."
            )
    return found
