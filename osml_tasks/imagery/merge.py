"""What overlapping tiles saw twice becomes one, while features stream by in rows of tiles.

A feature waits until no tile to come can have seen it too, and nothing that hangs together with it waits:
the result is the same as if all were compared with all, with no more in memory than a row of tiles and what
reaches into the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import orjson

from osml_tasks.imagery.classes import with_top_score
from osml_tasks.imagery.conflicts import Conflicts, find_conflicts
from osml_tasks.imagery.held import Held, Mask, hold
from osml_tasks.imagery.merge_options import MergeMethod, MergeOptions
from osml_tasks.imagery.seen import Seen
from osml_tasks.imagery.suppression import decay, suppress


def merge(
    seen: Iterable[Seen], options: MergeOptions, sizes: Mapping[str, tuple[int, int]] | None = None
) -> Iterator[bytes]:
    """Merge placed features.

    What is one with what is said by :func:`~osml_tasks.imagery.conflicts.find_conflicts`, which of them stays by
    :func:`~osml_tasks.imagery.suppression.suppress` and :func:`~osml_tasks.imagery.suppression.decay`. Features
    of one tile are never merged with each other, nor is one without a box, or outside of its tile.

    :param seen: image by image, each by rows of tiles from top to bottom. In a row any order will do. Another
        location, or a row above the one before, begins another image.
    :param sizes: by location an image's width and height, px. Where they are missing, its right and bottom edge
        are taken for edges where features are cut.
    :returns: lines of those that stay, without line ends, the bytes that came unless a score was lowered.
        Those that can be decided when a row of tiles is complete come then, in the order of their tiles, and
        within a tile as they came. So a feature may come some rows later than its neighbours, always the same.
    """
    wanted = (one for one in seen if one.score >= options.score_threshold) if options.score_threshold else seen
    if options.method is MergeMethod.NONE:
        return (one.line for one in wanted)
    return _by_rows(wanted, options, sizes or {})


def _by_rows(seen: Iterable[Seen], options: MergeOptions, sizes: Mapping[str, tuple[int, int]]) -> Iterator[bytes]:
    waiting: _Waiting | None = None
    image, above = "", -np.inf
    for (location, top), row in groupby(seen, key=_row):
        if waiting:
            another = location != image or top < above
            lines, waiting = waiting.settled(np.inf if another else top, options)
            yield from lines
        image, above = location, top
        held = hold(list(row), sizes.get(location))
        waiting = waiting.with_row(held, options) if waiting else _first_row(held, options)
    if waiting:
        yield from waiting.settled(np.inf, options)[0]


def _row(seen: Seen) -> tuple[str, float]:
    return seen.location, seen.tile[1]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Features of an image that are not decided, and which of them are one."""

    held: Held
    conflicts: Conflicts

    def with_row(self, row: Held, options: MergeOptions) -> _Waiting:
        held = self.held.followed_by(row)
        return _Waiting(held, self.conflicts.followed_by(find_conflicts(held, len(self.held), options)))

    def settled(self, top: float, options: MergeOptions) -> tuple[Iterable[bytes], _Waiting | None]:
        """Lines that stay of what no tile from this row on can have to do with; and what goes on waiting."""
        open_ended = self._open_ended(top)
        over = self._part(~open_ended)
        rest = self._part(open_ended) if open_ended.any() else None
        return _survivors(over, options), rest

    def _open_ended(self, top: float) -> Mask:
        reached = self.held.within[:, 3] > top
        first, second = self.conflicts.first, self.conflicts.second
        while (halfway := reached[first] != reached[second]).any():
            reached[first[halfway]] = reached[second[halfway]] = True
        return reached

    def _part(self, features: Mask) -> _Waiting:
        return _Waiting(self.held.take(features), self.conflicts.among(features))


def _first_row(row: Held, options: MergeOptions) -> _Waiting:
    return _Waiting(row, find_conflicts(row, 0, options))


def _survivors(over: _Waiting, options: MergeOptions) -> Iterable[bytes]:
    held = over.held
    if options.method is MergeMethod.NMS:
        return list(held.lines[suppress(held, over.conflicts)])
    scores = decay(held, over.conflicts, options)
    stays = ~np.isnan(scores)
    pairs = zip(held.lines[stays].tolist(), held.scores[stays].tolist(), scores[stays].tolist(), strict=True)
    return [line if after == before else _rescored(line, after) for line, before, after in pairs]


def _rescored(line: bytes, score: float) -> bytes:
    feature = orjson.loads(line)
    return orjson.dumps({**feature, "properties": with_top_score(feature["properties"], score)})
