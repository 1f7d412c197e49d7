"""report.html: a page in one file, which needs no server and loads nothing."""

from __future__ import annotations

import base64
import html
import importlib.resources
import json
import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from data.whole_files import AnyPath, write_text
from rc2l_jax.reports.photo_ranking import printable

PAGE = "report.html"
_GENERATOR = b'<meta name="generator" content="rc2l_jax">'  # near the beginning of page.html


def page_text(document: Mapping[str, Any]) -> str:
    """Fills in the template page.html.

    Args:
      document: "title", and what else the page shows. All of these may be missing: "lead" (a
        sentence), "notes" (sentences), "facts" (pairs of a title and a text), "commands" (pairs of
        a title and a command), "bars" (as `run_page` makes them), "pictures" (pairs of a caption
        and an address) and "gallery" (as `gallery.describe_gallery` makes it).
    """
    # No "<" of a name may end the script that holds the document.
    data = json.dumps(document, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    values = {"title": html.escape(document["title"]), "document": data}
    template = importlib.resources.files(__package__).joinpath("page.html").read_text("utf-8")
    return printable(re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template))


def write_page(path: AnyPath, document: Mapping[str, Any]) -> None:
    """Writes a page whole; see `page_text`."""
    write_text(path, page_text(document))


def is_page(path: epath.Path) -> bool:
    """Returns whether a file is a page that `write_page` wrote."""
    with path.open("rb") as file:
        return _GENERATOR in file.read(1 << 10)


def embedded(path: AnyPath) -> str:
    """Returns a PNG file as an address that holds all of it."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
