"""What a feature is of: its best class, and how sure the model is of it."""

from __future__ import annotations

from typing import Any

from osml_tasks.geometry import is_number

UNSCORED = 1.0
"""The score of what came without one."""


def top_class(properties: dict[str, Any]) -> tuple[str, float]:
    """The class with the highest score, and that score; of equals the first.

    ``featureClasses`` (``[{iri, score}]``) comes before the ``feature_types`` (``{name: score}``) of older models.
    What is neither is passed over: a model may write there what it likes.

    :param properties: of a feature, as ``orjson`` reads them.
    :returns: ``("", 1.0)`` where there is no class; the score is 1.0 where it has none.
    """
    found = _listed(properties.get("featureClasses")) or _mapped(properties.get("feature_types"))
    return max(found, key=_score_of, default=("", UNSCORED))


def with_top_score(properties: dict[str, Any], score: float) -> dict[str, Any]:
    """The properties with another score for :func:`top_class`; unchanged where there is no class to have one."""
    name, before = top_class(properties)
    classes: Any = properties.get("featureClasses")
    if _listed(classes):
        place = _listed_places(classes).index((name, before))
        return {**properties, "featureClasses": _replaced(classes, place, {**classes[place], "score": score})}
    if _mapped(properties.get("feature_types")):
        return {**properties, "feature_types": {**properties["feature_types"], name: score}}
    return properties


def _score_of(found: tuple[str, float]) -> float:
    return found[1]


def _listed(classes: object) -> list[tuple[str, float]]:
    return [one for one in _listed_places(classes) if one] if isinstance(classes, list) else []


def _listed_places(classes: list[Any]) -> list[tuple[str, float] | None]:
    """For each entry what it says, or None where it is no class."""
    return [
        (one["iri"], _score(one.get("score"))) if isinstance(one, dict) and isinstance(one.get("iri"), str) else None
        for one in classes
    ]


def _mapped(types: object) -> list[tuple[str, float]]:
    return [(name, _score(score)) for name, score in types.items()] if isinstance(types, dict) else []


def _score(score: Any) -> float:
    return float(score) if is_number(score) else UNSCORED


def _replaced(entries: list[Any], place: int, entry: Any) -> list[Any]:
    return [*entries[:place], entry, *entries[place + 1 :]]
