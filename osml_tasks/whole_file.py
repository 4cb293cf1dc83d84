"""Files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its name only when the block is through; a pipe or device is written as it comes.

    :raises OSError: it cannot be written.
    """
    whole = not path.exists() or path.is_file()
    target = path.with_name(f".osml-tasks-{uuid4().hex}.partial") if whole else path
    try:
        with target.open("wb") as file:
            yield file
        if whole:
            target.replace(path)
    finally:
        if whole:
            target.unlink(missing_ok=True)
