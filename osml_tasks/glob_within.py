"""A glob that lists nothing but what may be listed, for those who may not see everything."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


def files_within(pattern: str, enter: Callable[[str], object]) -> list[str]:
    """The files that a glob stands for, sorted; hidden ones and linked directories below ``**`` are left out.

    :param pattern: a path from the root on.
    :param enter: called with each directory before it is listed; raises where that may not be.
    """
    anchor, *parts = Path(pattern).parts
    found: Iterable[str] = [anchor]
    for place, part in enumerate(parts):
        found = _step(found, part, enter, is_last=place == len(parts) - 1)
    return sorted(path for path in found if Path(path).is_file())


def _step(paths: Iterable[str], part: str, enter: Callable[[str], object], *, is_last: bool) -> Iterator[str]:
    for path in paths:
        if part == "**":
            yield from _below(path, enter, is_last)
        elif not glob.has_magic(part):
            yield os.path.join(path, part)  # noqa: PTH118 - of text, for there may be many
        elif Path(path).is_dir():
            enter(path)
            names = fnmatch.filter(os.listdir(path), part)  # noqa: PTH208
            shown = (name for name in names if part.startswith(".") or not name.startswith("."))
            yield from (os.path.join(path, name) for name in shown)  # noqa: PTH118


def _below(path: str, enter: Callable[[str], object], with_files: bool) -> Iterator[str]:
    if not Path(path).is_dir():
        return
    enter(path)
    for folder, folders, files in os.walk(path, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield folder
        if with_files:
            yield from (os.path.join(folder, name) for name in files if not name.startswith("."))  # noqa: PTH118
