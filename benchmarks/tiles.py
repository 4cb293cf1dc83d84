"""The tiles of a benchmark: random bytes, on both sides of the limit for inline payloads."""

from __future__ import annotations

import random
from pathlib import Path

INLINE_LIMIT = 128_000
"""Largest ``Body`` of ``InvokeEndpointAsync``, bytes."""
SMALL = (60_000, 120_000)
LARGE = (140_000, 240_000)
"""Least and most bytes of a tile; half of the tiles are small, half large, so that the mean is 140 kB."""


def make_tiles(directory: Path, count: int, seed: int) -> list[Path]:
    """Write ``count`` tiles whose sizes and contents ``seed`` decides, small and large ones mixed."""
    directory.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    ranges = [SMALL if number % 2 else LARGE for number in range(count)]
    chance.shuffle(ranges)
    return [_make_tile(directory / f"tile-{number:05d}.png", chance, *ranges[number]) for number in range(count)]


def find_tiles(directory: Path) -> list[Path]:
    """The tiles of a directory, in order."""
    return sorted(directory.glob("*.png"))


def _make_tile(path: Path, chance: random.Random, least: int, most: int) -> Path:
    path.write_bytes(chance.randbytes(chance.randint(least, most)))
    return path
