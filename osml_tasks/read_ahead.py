"""Ranges of objects whose bytes do not change, read a block at a time: neighbours are asked for one after the other."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from osml_tasks.s3 import S3Manager, S3Uri

BLOCK_BYTES = 256 * 1024
_KEPT = 4


@dataclass(frozen=True, slots=True)
class _Block:
    start: int
    body: bytes

    def has(self, start: int, end: int) -> bool:
        return self.start <= start and end <= self.start + len(self.body)


class ReadAhead:
    """Reads ranges, and what comes after them for the next call. Thread-safe.

    The last block of each of four objects is kept: 256 KiB, or up to the end of the range that crosses its end.
    """

    def __init__(self, s3: S3Manager) -> None:
        self._s3 = s3
        self._lock = Lock()
        self._blocks: OrderedDict[tuple[S3Uri, int], _Block] = OrderedDict()

    def get_range(self, uri: S3Uri, start: int, end: int, version: int) -> bytes:
        """Read the bytes from ``start`` up to, not including, ``end``.

        :param version: another one when more bytes of the object are settled; what follows those may be anything.
        :raises S3OperationError: as :meth:`~osml_tasks.s3.S3Manager.get_range`, the object is shorter for one.
        """
        key = uri, version
        with self._lock:
            block = self._blocks.get(key)
        if block is None or not block.has(start, end):
            # From a boundary, for neighbours do not always come in their order.
            first = start - start % BLOCK_BYTES
            body = self._s3.get_range(uri, first, max(end, first + BLOCK_BYTES), least=end - first)
            block = _Block(first, body)
            with self._lock:
                self._blocks[key] = block
                self._blocks.move_to_end(key)
                while len(self._blocks) > _KEPT:
                    self._blocks.popitem(last=False)
        return block.body[start - block.start : end - block.start]
