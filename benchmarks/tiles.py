"""The tiles of a benchmark: random bytes, on both sides of the limit for inline payloads.

Few files have all the contents; the tiles are further names of them (hard links), so that 100,000 tiles take no
more of the disk than 200.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

INLINE_LIMIT = 128_000
"""Largest ``Body`` of ``InvokeEndpointAsync``, bytes."""
SMALL = (60_000, 120_000)
LARGE = (140_000, 240_000)
"""Least and most bytes of a tile; half of the tiles are small, half large, so that the mean is 140 kB."""

FILES = 200
"""Files with contents of their own; a file system takes 65,000 names for each."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The files that tiles are names of."""

    small: tuple[Path, ...]
    large: tuple[Path, ...]


def make_contents(directory: Path, seed: int = 1) -> Contents:
    """Write the files, whose sizes and contents ``seed`` decides."""
    directory.mkdir(parents=True)
    chance = random.Random(seed)
    sizes = [chance.randint(*(LARGE if number % 2 else SMALL)) for number in range(FILES)]
    paths = [_write(directory / f"content-{number:03d}", chance.randbytes(size)) for number, size in enumerate(sizes)]
    return Contents(small=tuple(paths[::2]), large=tuple(paths[1::2]))


def link_tiles(directory: Path, contents: Contents, count: int, *, only_small: bool = False, seed: int = 1) -> Path:
    """Make a directory of ``count`` tiles, half small and half large in an order that ``seed`` decides."""
    directory.mkdir(parents=True)
    kinds = (contents.small,) if only_small else (contents.small, contents.large)
    files = [kinds[number % len(kinds)][number // len(kinds) % len(kinds[0])] for number in range(count)]
    random.Random(seed).shuffle(files)
    for number, file in enumerate(files):
        os.link(file, directory / f"tile-{number:06d}.png")
    return directory


def find_tiles(directory: Path) -> list[Path]:
    """The tiles of a directory, in order."""
    return sorted(directory.glob("*.png"))


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
