"""Says what an annotation file is by its content, and reads it."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

from data.annotations import coco, cvat, label_studio, labelme, supervisely
from data.annotations.regions import AnnotationError, Annotations

SUFFIXES = (".json", ".xml")

_JSON = (
    (labelme.is_labelme, labelme.read),
    (coco.is_coco, coco.read),
    (label_studio.is_label_studio, label_studio.read),
    (supervisely.is_supervisely, supervisely.read),
    (supervisely.is_meta, supervisely.read_meta),
)
# Kinds of JSON that lack something, and what to do.
_UNREAD = (
    (
        label_studio.is_json_min,
        'is Label Studio\'s export "JSON-MIN", which does not say which shapes lie above others; '
        'export "JSON" instead',
    ),
    (
        coco.is_results,
        "is COCO's list of results, which names neither photos nor classes; write it as "
        '"annotations" into a file that has "images" and "categories", too',
    ),
    (
        coco.lacks_classes,
        'is COCO\'s without "categories", which name the classes; export it with them',
    ),
)


def read(content: bytes, *, xml: bool = False) -> Annotations | None:
    """Reads an annotation file of any format that is JSON or XML.

    Args:
      content: the file's bytes.
      xml: whether it is XML.

    Returns:
      What it holds; None if it is JSON or XML of some other kind.

    Raises:
      AnnotationError: it is damaged.
    """
    try:
        return _read_xml(content) if xml else _read_json(json.loads(content.decode("utf-8-sig")))
    except AnnotationError:
        raise
    except (ElementTree.ParseError, UnicodeDecodeError, json.JSONDecodeError) as error:
        kind = "XML" if xml else "JSON"
        raise AnnotationError(f"cannot be read as {kind} ({error}); export it again") from error
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
        reason = f"{type(error).__name__}: {error}"
        raise AnnotationError(f"is no whole annotation ({reason}); export it again") from error


def _read_json(document: Any) -> Annotations | None:
    for is_it, reader in _JSON:
        if is_it(document):
            return reader(document)
    return None


def why_unread(content: bytes, *, xml: bool = False) -> str:
    """Why a file is not read for which `read` returns None, and what to do."""
    document = None if xml else json.loads(content.decode("utf-8-sig"))
    for is_it, why in _UNREAD:
        if is_it(document):
            return why
    return "is of no format that is read (docs/masks.md lists them)"


def _read_xml(content: bytes) -> Annotations | None:
    root = ElementTree.fromstring(content)
    return cvat.read(root) if cvat.is_cvat(root) else None
