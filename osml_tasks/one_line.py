"""Texts of others, such as names of tiles and messages of models, as they may stand within a line of ours."""

from __future__ import annotations


def in_one_line(text: str, longest: int | None = None) -> str:
    """A text with nothing in it that ends a line or moves a terminal's cursor: that is written as an escape.

    :param longest: how many characters to keep at most, from its beginning.
    """
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[:longest])
    return text[:longest]
