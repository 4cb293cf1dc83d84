"""One payload for the model, and where it is."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from osml_tasks.imagery.window import Window


@dataclass(frozen=True, slots=True)
class Tile:
    """A payload: a file, an object, or a window of an image.

    :ivar index: its place in the job, from 0; features come out in this order.
    :ivar location: where a worker finds it, or its image: an ``s3://`` URI or an absolute path.
    :ivar name: what the user called it; of a window :func:`window_name`.
    :ivar window: what it is of its image; None where it is a payload as it stands.
    :ivar image: the number of that image in its job.
    """

    index: int
    location: str
    name: str
    window: Window | None = None
    image: int = 0

    def to_json(self) -> bytes:
        """The tile as one line of the job's manifest."""
        values: list[object] = [self.index, self.location, self.name]
        if (window := self.window) is not None:
            values += [self.image, window.x, window.y, window.width, window.height]
        # A copy: what orjson returns keeps 4 kB of memory for as long as it lives, and there may be 100,000 of these.
        return orjson.dumps(values) + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> Tile:
        """Read one line of a manifest."""
        index, location, name, *cut = orjson.loads(line)
        if not cut:
            return cls(index, location, name)
        image, x, y, width, height = cut
        return cls(index, location, name, Window(y=y, x=x, width=width, height=height), image)


def window_name(image: str, window: Window) -> str:
    """What a tile of an image is called, after Media Fragments (W3C, 2012): ``scene.tif#xywh=1024,0,512,512``."""
    return f"{image}#xywh={window.x},{window.y},{window.width},{window.height}"
