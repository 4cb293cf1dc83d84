"""Files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

_STREAMS = ("/dev", "/proc")


def is_stream(path: Path) -> bool:
    """Whether a path leads to a pipe, a device or what this process has open, which is written to and not replaced."""
    if path.is_symlink() and str(path.absolute()).startswith(_STREAMS):
        return True
    return path.exists() and not path.is_file()


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its name only when the block is through; a stream is written as it comes.

    :raises OSError: it cannot be written.
    """
    if is_stream(path):
        with path.open("wb") as file:
            yield file
        return
    target = path.with_name(f".osml-tasks-{uuid4().hex}.partial")
    try:
        with target.open("wb") as file:
            yield file
        target.replace(path)
    finally:
        target.unlink(missing_ok=True)
