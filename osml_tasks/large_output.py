"""A large output of a model: its features come some thousand at a time, so that nobody has to hold all of them.

Values take up to a hundred times the memory of their text, so nothing is parsed before its length is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from osml_tasks.errors import UnparsableOutputError
from osml_tasks.features import BYTE_ORDER_MARK, Feature, parse
from osml_tasks.geometry import shown

FEATURES_AT_A_TIME = 10_000
BYTES_AT_A_TIME = 4 * 1024 * 1024
"""What is parsed at a time has no more; one feature alone may have :data:`MOST_BYTES_OF_FEATURE`."""
MOST_BYTES_OF_FEATURE = 16 * 1024 * 1024
MOST_BYTES_OF_MEMBER = 4 * 1024 * 1024
"""Of what else there is in the collection, each by itself."""

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_TOKEN = re.compile(rb"%b|[\"\[\]{}]" % _STRING, re.DOTALL)
_MEMBER = re.compile(rb"\s*+(%b)\s*+:\s*+" % _STRING, re.DOTALL)
_SCALAR = re.compile(rb"%b|[^\s,\[\]{}\":]++" % _STRING, re.DOTALL)
_NEXT = re.compile(rb"\s*+([,\]}])\s*+")
_BLANK = re.compile(rb"\s*+")
_EXPECTED_DEPTH = 30  # what is deeper takes longer
_DEEPEST = 1024  # orjson goes no deeper
_MOST_MEMBERS = 1000


def _nested(depth: int) -> bytes:
    """Brackets with anything between them, down to some depth; that they match is looked at when they are parsed."""
    inner = rb"|" + _nested(depth - 1) if depth else b""
    return rb"[\[{](?:[^\"\[\]{}]++|%b%b)*+[\]}]" % (_STRING, inner)


_BRACKETS = re.compile(_nested(_EXPECTED_DEPTH), re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Run:
    """Features next to each other: the number of the first, and where in the output they are."""

    first: int
    start: int
    end: int


class _Runs(list[_Run]):
    """Runs of a list, each of which has been looked at."""

    def add(self, output: bytes, run: _Run) -> None:
        """Add one.

        :raises UnparsableOutputError: it has something else than features.
        """
        _parse_run(output, run)
        self.append(run)


def parse_in_turns(output: bytes) -> Iterator[list[Feature]]:
    """The features of an output as :func:`~osml_tasks.features.parse` gives them, in lists of some thousand.

    Members come in any order.

    :raises UnparsableOutputError: as ``parse`` does, or something is too large to be looked at; before the first
        list is given.
    """
    for run in _runs_of_collection(output):
        yield _parse_run(output, run)


def _runs_of_collection(output: bytes) -> list[_Run]:
    """The features of a collection, each of them looked at, in runs that may be parsed at once."""
    place = _after_blanks(output, len(BYTE_ORDER_MARK) if output.startswith(BYTE_ORDER_MARK) else 0)
    if output[place : place + 1] != b"{":
        raise UnparsableOutputError(f"the output is not a FeatureCollection but begins with {output[:20]!r}")
    place = _after_blanks(output, place + 1)
    sign, members = b",", 0
    if output[place : place + 1] == b"}":
        sign, place = b"}", place + 1
    kind: object = None
    runs: list[_Run] | object = None
    while sign == b",":
        member = _MEMBER.match(output, place, place + MOST_BYTES_OF_MEMBER)
        members += 1
        if member is None or members > _MOST_MEMBERS:
            raise _no_json(output, place, "members" if member else "a member")
        name, place = _parsed(output, *member.span(1)), member.end()
        if name == "features" and output[place : place + 1] == b"[":
            runs, end = _runs(output, place + 1)
        else:
            end = _value_end(output, place, MOST_BYTES_OF_MEMBER, f"the FeatureCollection's {str(name)[:60]!r}")
            value = _parsed(output, place, end)
            kind = value if name == "type" else kind
            runs = value if name == "features" else runs
        sign, place = _sign(output, end)
    if sign != b"}" or _after_blanks(output, place) != len(output):
        raise _no_json(output, place, "the end")
    if kind != "FeatureCollection":
        raise UnparsableOutputError(f"the output is not a FeatureCollection but {shown({'type': kind})}")
    if not isinstance(runs, _Runs):
        raise UnparsableOutputError(f"the FeatureCollection's 'features' is not a list but {shown(runs)}")
    return runs


def _runs(output: bytes, place: int) -> tuple[_Runs, int]:
    """The features of a list, and where it ends."""
    runs = _Runs()
    place = _after_blanks(output, place)
    if output[place : place + 1] == b"]":
        return runs, place + 1
    first, start, count, last, sign = 0, place, 0, place, b","
    while sign == b",":
        end = _value_end(output, place, MOST_BYTES_OF_FEATURE, f"features[{first + count}]")
        if count == FEATURES_AT_A_TIME or (count and end - start > BYTES_AT_A_TIME):
            runs.add(output, _Run(first, start, last))
            first, start, count = first + count, place, 0
        count, last = count + 1, end
        sign, place = _sign(output, end)
    if sign != b"]":
        raise _no_json(output, place, "the list's end")
    runs.add(output, _Run(first, start, last))
    return runs, place


def _value_end(output: bytes, start: int, most: int, what: str) -> int:
    """Where a value ends that begins somewhere and has so many bytes at most."""
    limit = start + most
    if output[start : start + 1] in (b"[", b"{"):
        found = _BRACKETS.match(output, start, limit)
        end = found.end() if found else _end_of_deep(output, start, limit, what)
    else:
        found = _SCALAR.match(output, start, limit)
        end = found.end() if found else -1
    if end > 0:
        return end
    if limit < len(output):
        raise UnparsableOutputError(f"{what} has more than {most:,} bytes: have the model answer less")
    raise _no_json(output, start, "a value")


def _end_of_deep(output: bytes, start: int, limit: int, what: str) -> int:
    """The same of brackets that are deeper than usual; -1 if they do not end."""
    depth = 0
    for token in _TOKEN.finditer(output, start, limit):
        if token.end() - token.start() > 1:
            continue
        sign = output[token.start()]
        if sign == ord('"'):
            break  # one that does not end
        depth += 1 if sign in b"[{" else -1
        if depth > _DEEPEST:
            raise UnparsableOutputError(f"{what} is nested more than 250 levels deep")
        if not depth:
            return token.end()
    return -1


def _sign(output: bytes, place: int) -> tuple[bytes, int]:
    """What follows a value, a comma or a bracket, and where what comes after that begins."""
    found = _NEXT.match(output, place)
    if found is None:
        raise _no_json(output, place, "a comma or a bracket")
    return found[1], found.end()


def _after_blanks(output: bytes, place: int) -> int:
    blank = _BLANK.match(output, place)
    return place if blank is None else blank.end()


def _parsed(output: bytes, start: int, end: int) -> object:
    try:
        parsed: object = orjson.loads(memoryview(output)[start:end])
    except orjson.JSONDecodeError as error:
        raise UnparsableOutputError(f"the output is not JSON: {error}, from its byte {start:,} on") from None
    return parsed


def _no_json(output: bytes, place: int, expected: str) -> UnparsableOutputError:
    what = f"{output[place : place + 20]!r}" if place < len(output) else "its end"
    return UnparsableOutputError(
        f"the output is not JSON: it has {what} at byte {place:,} for {expected}; it begins with {output[:20]!r}"
    )


def _parse_run(output: bytes, run: _Run) -> list[Feature]:
    features = memoryview(output)[run.start : run.end]
    return parse(b"".join((b'{"type":"FeatureCollection","features":[', features, b"]}")), first=run.first)
