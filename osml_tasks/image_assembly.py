"""What is special about the end of a job over images: overlapping tiles saw things twice, and the report has images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from osml_tasks.connections import Connections
from osml_tasks.features import split_lines
from osml_tasks.jobs import Job
from osml_tasks.parts import read_parts, skipped_tiles
from osml_tasks.s3 import S3Object

if TYPE_CHECKING:
    from osml_tasks.imagery.seen import Seen

_LINES_AT_A_TIME = 2000


class Merged:
    """The features of a job, each once; counted as they are read.

    :ivar features: how many have been read.
    """

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self.features = 0

    def chunks(self) -> Iterator[bytes]:
        """Some thousand lines at a time."""
        while lines := [*islice(self._lines, _LINES_AT_A_TIME)]:
            self.features += len(lines)
            yield b"\n".join(lines) + b"\n"


def merge_parts(connections: Connections, job: Job, parts: Sequence[S3Object]) -> Merged | None:
    """What the parts of a job have, without what tiles saw twice; None where nobody asks for that.

    :param parts: all of them, in the order of their shards.
    """
    from osml_tasks.imagery.merge import merge
    from osml_tasks.imagery.merge_options import MergeMethod
    from osml_tasks.imagery.seen import in_order

    known = connections.image_tiles.of(job)
    if known.merging.method is MergeMethod.NONE:
        return None
    streams = [_seen(connections, of_round) for of_round in _by_round(job, parts)]
    places = {image.name: number for number, image in enumerate(known.images)}
    seen = streams[0] if len(streams) == 1 else in_order(streams, places)
    sizes = {image.name: (image.width, image.height) for image in known.images}
    return Merged(merge(seen, known.merging, sizes))


def _by_round(job: Job, parts: Sequence[S3Object]) -> Iterator[Sequence[S3Object]]:
    """The parts of each round: within one, they are in the order of the image's tiles."""
    first = 0
    for one in job.rounds:
        yield parts[first : first + one.shards]
        first += one.shards


def _seen(connections: Connections, parts: Sequence[S3Object]) -> Iterator[Seen]:
    from osml_tasks.imagery.seen import Seen

    return map(Seen.from_line, split_lines(read_parts(connections, [*parts])))


def report_images(connections: Connections, job: Job) -> dict[str, Any]:
    """What the report of a job over images has besides."""
    known, skipped = connections.image_tiles.of(job), skipped_tiles(connections, job)
    entries = [
        {
            "location": image.name,
            "format": image.format,
            "width": image.width,
            "height": image.height,
            "bands": image.bands,
            "dtype": image.dtype,
            "crs": image.crs,
            "georeferenced": image.georeference is not None,
            "conversion": image.conversion,
            "tiles": image.tiles,
            "skipped": skipped[number],
        }
        for number, image in enumerate(known.images)
    ]
    return {"skipped": skipped.total(), "images": entries}
