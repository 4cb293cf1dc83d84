"""How large the scenarios are."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.ways import CHORD, OSML, POLL_EACH, THREADS, THREADS_INLINE, Way

COMPARED = (POLL_EACH, THREADS, THREADS_INLINE, CHORD, OSML)


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers of tiles, where nothing else is said.

    :ivar main: of the main job.
    :ivar small: of the job whose tiles are all small.
    :ivar compared: the ways of the main job; one after the other would take a second a tile.
    :ivar far: of the job with AWS far away.
    :ivar base: what ``large`` is compared with.
    :ivar last: of the shortest job whose end is looked at.
    :ivar many: of the job over 64 slots.
    :ivar one_by_one: that the detector does one after the other.
    :ivar last_runs: at how many endpoints the end is looked at, at each while it is new and once more.
    :ivar starts: how often a start is measured, for the best.
    :ivar cut_side: px of the image that is cut into tiles, again and again.
    :ivar cog_side: px of the image that goes the whole way.
    :ivar merged: lines of features that are merged.
    """

    main: int
    small: int
    compared: tuple[Way, ...]
    far: int
    base: int
    large: int
    last: int
    many: int
    one_by_one: int
    last_runs: int
    starts: int
    cut_side: int
    cog_side: int
    merged: int


FULL = Scale(
    main=1500,
    small=1500,
    compared=COMPARED,
    far=2000,
    base=1000,
    large=100_000,
    last=64,
    many=3200,
    one_by_one=30,
    last_runs=3,
    starts=5,
    cut_side=4096,
    cog_side=20_000,
    merged=1_000_000,
)
QUICK = Scale(
    main=120,
    small=40,
    compared=(THREADS, OSML),
    far=100,
    base=100,
    large=300,
    last=8,
    many=128,
    one_by_one=2,
    last_runs=1,
    starts=2,
    cut_side=1024,
    cog_side=4000,
    merged=50_000,
)
