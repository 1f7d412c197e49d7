"""Recognises what git leaves in place of a large file until git-lfs fetches it."""

IS_POINTER = (
    "a pointer of git-lfs and not the file itself; git lfs pull, run in its checkout, gets the file"
)
_START = b"version https://git-lfs.github.com/spec/"


def is_pointer(content: bytes) -> bool:
    """Whether a file, or its beginning, is a pointer of git-lfs."""
    return content.startswith(_START)
