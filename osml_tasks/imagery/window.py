"""Where a tile lies in its image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of an image's pixels; ordered by rows of tiles, each from left to right.

    :ivar y: row of its top left pixel.
    :ivar x: column of its top left pixel.
    :ivar width: px; so is ``height``.
    """

    y: int
    x: int
    width: int
    height: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """``(min x, min y, max x, max y)`` in pixels of the image, the maxima not included."""
        return (self.x, self.y, self.x + self.width, self.y + self.height)
