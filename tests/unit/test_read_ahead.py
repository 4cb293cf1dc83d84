"""Ranges out of blocks: always the object's bytes, and fewer requests for neighbours."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.read_ahead import BLOCK_BYTES, ReadAhead
from osml_tasks.s3 import S3Uri

URI = S3Uri("tiles", "in/job-1/tiles.jsonl")


class Memory:
    """Objects in memory, read by ranges."""

    def __init__(self, size: int) -> None:
        self.body = random.Random(size).randbytes(size)
        self.requests = 0

    def get_range(self, uri: S3Uri, start: int, end: int, *, least: int) -> bytes:
        self.requests += 1
        body = self.body[start:end]
        assert len(body) >= least
        return body


def opened(size: int) -> tuple[Memory, ReadAhead]:
    memory: Any = Memory(size)
    return memory, ReadAhead(memory)


@given(st.integers(1, 3 * BLOCK_BYTES), st.data())
def test_ranges_in_any_order_are_the_objects_bytes(size: int, data: st.DataObject) -> None:
    memory, reader = opened(size)
    for _ in range(data.draw(st.integers(1, 8))):
        start = data.draw(st.integers(0, size - 1))
        end = data.draw(st.integers(start + 1, size))
        assert reader.get_range(URI, start, end, version=1) == memory.body[start:end]


@given(st.permutations(range(40)))
def test_neighbours_are_read_together_in_whatever_order(order: list[int]) -> None:
    memory, reader = opened(40 * 5000)
    for number in order:
        reader.get_range(URI, number * 5000, (number + 1) * 5000, version=1)
    assert memory.requests == 1


def test_what_has_grown_is_read_anew() -> None:
    memory, reader = opened(10_000)
    reader.get_range(URI, 0, 5000, version=1)
    memory.body = memory.body[:5000] + b"x" * 9000
    assert reader.get_range(URI, 5000, 14_000, version=2) == b"x" * 9000
