"""Which of several features that are one and the same stays, and with which score."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from osml_tasks.imagery.conflicts import Conflicts
from osml_tasks.imagery.held import Floats, Held, Mask, Places
from osml_tasks.imagery.merge_options import MergeOptions

DECAYED_AWAY = 0.001
"""A decayed score below this is none, where the options have no threshold."""


def suppress(held: Held, conflicts: Conflicts) -> Mask:
    """Non-maximum suppression: the best feature stays, what is one with it goes, and so on with what is left.

    A whole feature is better than a cut one, then one with a higher score. Of equals it is the one whose box,
    then whose tile, comes first: nothing hangs on the order of arrival.

    :returns: which features stay.
    """
    rank = _rank(held, conflicts, (held.cut, -held.scores))
    first_wins = rank[conflicts.first] < rank[conflicts.second]
    better = np.where(first_wins, conflicts.first, conflicts.second)
    lesser = np.where(first_wins, conflicts.second, conflicts.first)
    stays = np.ones(len(held), np.bool_)
    # Whatever has nothing better beside it stays, and what is beside that goes: all such at once, then again.
    while len(better):
        beaten = np.zeros(len(held), np.bool_)
        beaten[lesser] = True
        stays[lesser[~beaten[better]]] = False
        left = beaten[better] & stays[better] & stays[lesser]
        better, lesser = better[left], lesser[left]
    return stays


def decay(held: Held, conflicts: Conflicts, options: MergeOptions) -> Floats:
    """Soft suppression: the best feature lowers the score of what is one with it, and so on with what is left.

    The linear method of N. Bodla, B. Singh, R. Chellappa, L. S. Davis, "Soft-NMS: Improving Object Detection
    With One Line of Code", ICCV 2017: a score is multiplied by one minus the overlap. What falls below
    ``score_threshold``, or 0.001 where that is 0, goes at once. The order is that of :func:`suppress`, with
    the scores as they are at that moment.

    :returns: the new scores; NaN for what goes.
    """
    least = options.score_threshold or DECAYED_AWAY
    scores = held.scores.copy()
    rank = _rank(held, conflicts)
    beside = _beside(conflicts)
    left = [(bool(held.cut[place]), -float(scores[place]), int(rank[place]), place) for place in beside]
    heapq.heapify(left)
    done: set[int] = set()
    while left:
        _, negative, _, place = heapq.heappop(left)
        if place in done or -negative != scores[place]:
            continue  # what was true of it before its score was lowered
        done.add(place)
        for other, overlap in beside[place]:
            if other in done:
                continue
            scores[other] *= max(0.0, 1.0 - overlap)
            if scores[other] < least:
                scores[other] = np.nan
                done.add(other)
            else:
                heapq.heappush(left, (bool(held.cut[other]), -float(scores[other]), int(rank[other]), other))
    return scores


def _beside(conflicts: Conflicts) -> dict[int, list[tuple[int, float]]]:
    beside: dict[int, list[tuple[int, float]]] = defaultdict(list)
    pairs = zip(conflicts.first.tolist(), conflicts.second.tolist(), conflicts.overlap.tolist(), strict=True)
    for first, second, overlap in pairs:
        beside[first].append((second, overlap))
        beside[second].append((first, overlap))
    return beside


def _rank(held: Held, conflicts: Conflicts, preferred: Sequence[Floats | Mask] = ()) -> Places:
    """For each feature that has a conflict its place in an order, from 0: by these keys, then by box and tile."""
    places = np.unique(np.concatenate((conflicts.first, conflicts.second)))
    keys = (*preferred, *held.boxes.T, *held.tiles.T)
    order = np.lexsort([key[places] for key in reversed(keys)])
    rank = np.full(len(held), -1, np.int64)
    rank[places[order]] = np.arange(len(places))
    return rank
