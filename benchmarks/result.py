"""Whether a result has what the model has found, feature by feature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from benchmarks.errors import BenchmarkError
from benchmarks.model import FEATURES_PER_TILE, feature

WHOLE_BYTES = 64_000_000
"""Results of up to so many bytes are read at once, larger ones by their lines."""

_WANTED = {str(one["id"]): (1 << number, one) for number, one in enumerate(map(feature, range(FEATURES_PER_TILE)))}
_ALL = (1 << FEATURES_PER_TILE) - 1


def check_result(result: Path, tiles: Iterable[Path]) -> None:
    """Compare a result with what each tile has to give.

    :raises BenchmarkError: a feature is missing, doubled or changed.
    """
    found = dict.fromkeys(map(str, tiles), 0)
    for one in _features(result):
        bit, tile = _known(one, result), one["properties"]["sourceMetadata"][0]["location"]
        if found.get(tile, bit) & bit:
            raise BenchmarkError(f"{result} has a feature twice, or of no tile: {one}")
        found[tile] |= bit
    wrong = [tile for tile, bits in found.items() if bits != _ALL]
    if wrong:
        raise BenchmarkError(f"{result}: {len(wrong)} tiles have not all their features, such as {wrong[0]}")


def _known(one: dict[str, Any], result: Path) -> int:
    """Which of the model's features this is, as a bit; it must be as the model gave it."""
    bit, wanted = _WANTED.get(one.get("id", ""), (0, None))
    if wanted is None or one["geometry"] is not None:
        raise BenchmarkError(f"{result} has a feature that no model gave: {one}")
    if any(one["properties"].get(name) != value for name, value in wanted["properties"].items()):
        raise BenchmarkError(f"{result} has a feature that was changed on its way: {one}")
    return bit


def _features(result: Path) -> Iterator[dict[str, Any]]:
    if result.stat().st_size <= WHOLE_BYTES:
        yield from orjson.loads(result.read_bytes())["features"]
        return
    with result.open("rb") as lines:
        for line in lines:
            if line.startswith(b'{"') and b'"FeatureCollection"' not in line:
                yield orjson.loads(line.rstrip().removesuffix(b","))
