"""The colour of a class, the same on every map and preview that shows the same classes."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

Colour = tuple[int, int, int]

UNCLASSIFIED: Colour = (0xBD, 0xBD, 0xBD)
"""Of what has no class."""

# Told apart whatever one's colour vision: M. Okabe, K. Ito, "Color Universal Design", 2008; less its
# black and its blue, which imagery is too dark for.
_PALETTE: tuple[Colour, ...] = (
    (0xE6, 0x9F, 0x00),
    (0x56, 0xB4, 0xE9),
    (0x00, 0x9E, 0x73),
    (0xF0, 0xE4, 0x42),
    (0xD5, 0x5E, 0x00),
    (0xCC, 0x79, 0xA7),
)


def _pale(part: int) -> int:
    return (2 * part + 3 * 255) // 5


_COLOURS = (*_PALETTE, *((_pale(red), _pale(green), _pale(blue)) for red, green, blue in _PALETTE))


def class_colours(names: Iterable[str]) -> dict[str, Colour]:
    """A colour for each class, in the order of names. Past 12 classes colours come again.

    A class asks for the colour that its name leads to, and gets the next one that is free: so it has the same
    colour in most jobs, and in all that find the same classes.
    """
    colours: dict[str, Colour] = {}
    taken: set[int] = set()
    for name in sorted(set(names) - {""}):
        if len(taken) == len(_COLOURS):
            taken.clear()
        place = _first_free(name, taken)
        taken.add(place)
        colours[name] = _COLOURS[place]
    return {"": UNCLASSIFIED} | colours


def _first_free(name: str, taken: set[int]) -> int:
    """The strong colours go first, the pale ones when those are gone."""
    wanted = crc32(name.encode(errors="surrogatepass"))
    strong, pale = range(len(_PALETTE)), range(len(_PALETTE), len(_COLOURS))
    places = strong if len(taken) < len(strong) else pale
    return next(place for step in places if (place := places[(wanted + step) % len(places)]) not in taken)
