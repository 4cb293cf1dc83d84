"""A large output of a model: its features come some thousand at a time, so that nobody has to hold all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from osml_tasks.features import Feature, parse

FEATURES_AT_A_TIME = 10_000

# As a model that writes large answers begins them; any other collection is read as a whole.
_HEAD = re.compile(r'\s*\{\s*(?:"type"\s*:\s*"FeatureCollection"\s*,\s*)?"features"\s*:\s*\[\s*')
_COMMA = re.compile(r"\s*,\s*")
_STAND_IN = '{"type":"Feature","geometry":null,"properties":{"stands":"in"}}'
_END = re.compile(r"\s*(?=\])")


def parse_in_turns(output: bytes) -> Iterator[list[Feature]]:
    """The features of an output as :func:`~osml_tasks.features.parse` gives them, in lists of some thousand.

    :raises UnparsableOutputError: as ``parse`` does, and before the first list is given.
    """
    text = _decoded(output)
    turns = _turns(text) if text else None
    if turns is None:
        yield parse(output)
        return
    del output
    for number, (start, end) in enumerate(turns):
        _parse_turn(text, start, end, number)
    for number, (start, end) in enumerate(turns):
        yield _parse_turn(text, start, end, number)


def _decoded(output: bytes) -> str:
    """The output as text, or nothing if it is none."""
    try:
        return output.decode()
    except UnicodeDecodeError:
        return ""


def _turns(text: str) -> list[tuple[int, int]] | None:
    """From where to where each list of features reaches in a collection; None if that is not to be seen."""
    head = _HEAD.match(text)
    if head is None:
        return None
    try:
        turns, last = _runs(text, head.end())
    except (ValueError, RecursionError):
        return None
    end = _END.match(text, last)
    if end is None:
        return None
    # What stands around the features has to make a collection, and of these features, not of others further on.
    around = parse(f"{text[: head.end()]}{_STAND_IN}{text[end.end() :]}".encode())
    return turns if [one["properties"] for one in around] == [{"stands": "in"}] else None


def _runs(text: str, start: int) -> tuple[list[tuple[int, int]], int]:
    """Runs of values with commas between them, and where the last of them ends.

    :raises ValueError: there is no value where one should be.
    """
    read = json.JSONDecoder().raw_decode
    runs: list[tuple[int, int]] = []
    place, count = start, 0
    while True:
        _, end = read(text, place)
        count += 1
        comma = _COMMA.match(text, end)
        if comma is None or count == FEATURES_AT_A_TIME:
            runs.append((start, end))
            count = 0
        if comma is None:
            return runs, end
        place = comma.end()
        start = start if count else place


def _parse_turn(text: str, start: int, end: int, number: int) -> list[Feature]:
    collection = f'{{"type":"FeatureCollection","features":[{text[start:end]}]}}'
    return parse(collection.encode(), first=number * FEATURES_AT_A_TIME)
