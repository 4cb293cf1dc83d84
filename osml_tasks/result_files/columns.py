"""What a table of features has for columns: models give to each feature what properties they like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import NoneType
from typing import Any

import orjson

from osml_tasks.errors import VectorFileError
from osml_tasks.features import Feature
from osml_tasks.imagery.classes import top_class

_MOST_COLUMNS = 1_900  # SQLite, which a GeoPackage is, has room for 2,000
# What the formats themselves, and those who read them, call their columns.
_RESERVED = ("fid", "ogc_fid", "geom", "geometry", "wkb_geometry")
_EXACT_IN_FLOAT = 2**53
_INT64 = 2**63


class Added(Enum):
    """What a row has beside the feature's properties."""

    CLASS = "class"
    SCORE = "score"
    ID = "id"


Row = dict[str | Added, Any]


class Storage(StrEnum):
    """What a column keeps. JSON is text: of lists, of objects, and of values that are not all of one kind."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    REAL = "real"
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table.

    :ivar source: the property that it holds.
    :ivar name: unlike any other's, whether written large or small.
    """

    source: str | Added
    name: str
    storage: Storage

    def value(self, row: Row) -> Any:
        """What a row has in this column; None for nothing."""
        value = row.get(self.source)
        if value is None or self.storage is not Storage.JSON:
            return value
        return orjson.dumps(value).decode()


@dataclass(frozen=True, slots=True)
class Layout:
    """What all features have in common.

    :ivar geometries: their types, each with whether it has heights.
    :ivar has_blanks: whether some have no geometry, or an empty one.
    """

    columns: tuple[Column, ...]
    geometries: frozenset[tuple[str, bool]]
    has_blanks: bool
    features: int


def row_of(feature: Feature) -> Row:
    """What a feature has in its row: its properties, its best class with the score, its id."""
    properties = feature["properties"]
    row: Row = dict(properties)
    name, score = top_class(properties)
    if name:
        row[Added.CLASS], row[Added.SCORE] = name, float(score)
    if "id" in feature:
        row[Added.ID] = feature["id"]
    return row


def survey(lines: Iterable[bytes]) -> Layout:
    """Read all features once, to know their columns and the kinds of their geometries.

    :raises VectorFileError: their properties have more names than a table has columns.
    """
    kinds: dict[str | Added, set[object]] = {Added.CLASS: {str}, Added.SCORE: {float}}
    geometries: set[tuple[str, bool]] = set()
    has_blanks, count = False, 0
    for line in lines:
        feature = orjson.loads(line)
        for name, value in feature["properties"].items():
            kinds.setdefault(name, set()).add(_kind(value))
        if "id" in feature:
            kinds.setdefault(Added.ID, set()).add(_kind(feature["id"]))
        if len(kinds) > _MOST_COLUMNS:
            raise VectorFileError(f"the features have properties of more than {_MOST_COLUMNS:,} names")
        geometry = feature["geometry"]
        if geometry is None or _is_empty(geometry):
            has_blanks = True
        else:
            geometries.add((geometry["type"], _has_heights(geometry)))
        count += 1
    return Layout(tuple(_columns(kinds)), frozenset(geometries), has_blanks, count)


def _kind(value: object) -> object:
    """The type of a value, or in words what keeps it out of a column of that type."""
    kind = type(value)
    if kind is int and not -_EXACT_IN_FLOAT <= value <= _EXACT_IN_FLOAT:  # type: ignore[operator]
        return "large" if -_INT64 <= value < _INT64 else "huge"  # type: ignore[operator]
    if kind is str and "\0" in value:  # type: ignore[operator]
        return "with an end in it"
    return kind


def _storage(kinds: set[object]) -> Storage:
    some = kinds - {NoneType}
    if some <= {str}:
        return Storage.TEXT
    if some == {bool}:
        return Storage.BOOLEAN
    if some <= {int, "large"}:
        return Storage.INTEGER
    return Storage.REAL if some <= {int, float} else Storage.JSON


def _columns(kinds: dict[str | Added, set[object]]) -> Iterator[Column]:
    names = _names([source for source in kinds if isinstance(source, str)])
    taken = {name.casefold() for name in kinds if isinstance(name, str)}
    for added in Added:
        # A property that says the class is as good; an id is another thing.
        if added in kinds and (added is Added.ID or added.value not in taken):
            name = added.value if added.value not in taken else _free(added.value, _folded(names.values()))
            yield Column(added, name, _storage(kinds[added]))
    for source, name in names.items():
        yield Column(source, name, _storage(kinds[source]))


def _names(properties: list[str]) -> dict[str, str]:
    """A column's name for each property: its own, or with a number where another has that already."""
    names = dict.fromkeys(properties, "")
    taken = set(_RESERVED)
    for name in properties:
        if name.casefold() not in taken and "\0" not in name:
            names[name] = name
            taken.add(name.casefold())
    for source in (source for source in properties if not names[source] and source):
        names[source] = _free(source.replace("\0", "_"), taken)
        taken.add(names[source].casefold())
    return names


def _free(name: str, taken: set[str]) -> str:
    number, candidate = 1, name
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _folded(names: Iterable[str]) -> set[str]:
    return {name.casefold() for name in names}


def _is_empty(geometry: dict[str, Any]) -> bool:
    if geometry["type"] == "GeometryCollection":
        return all(map(_is_empty, geometry["geometries"]))
    return not geometry["coordinates"]


def _has_heights(geometry: dict[str, Any]) -> bool:
    """Whether the first position has one; that all are alike is left to whoever wrote them."""
    while geometry["type"] == "GeometryCollection":
        geometry = next(one for one in geometry["geometries"] if not _is_empty(one))
    first = geometry["coordinates"]
    while isinstance(first[0], list):
        first = first[0]
    return len(first) > 2
