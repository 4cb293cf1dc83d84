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
    best, highest = None, UNSCORED
    classes = properties.get("featureClasses")
    for one in classes if type(classes) is list else ():
        if _is_class(one):
            score = _score(one.get("score"))
            if best is None or score > highest:
                best, highest = one["iri"], score
    if best is None:
        for name, given in _mapped(properties.get("feature_types")).items():
            score = _score(given)
            if best is None or score > highest:
                best, highest = name, score
    return best or "", highest


def with_top_score(properties: dict[str, Any], score: float) -> dict[str, Any]:
    """The properties with a lower score for :func:`top_class`, and all others lowered in proportion.

    So the best class stays the best. Nothing changes where there is none.
    """
    _, highest = top_class(properties)

    def lowered(given: Any) -> float:
        before = _score(given)
        return score if before == highest else min(score, before * score / highest)

    classes = properties.get("featureClasses")
    if type(classes) is list and any(map(_is_class, classes)):
        entries = [{**one, "score": lowered(one.get("score"))} if _is_class(one) else one for one in classes]
        return {**properties, "featureClasses": entries}
    if types := _mapped(properties.get("feature_types")):
        return {**properties, "feature_types": {name: lowered(given) for name, given in types.items()}}
    return properties


def _is_class(one: Any) -> bool:
    return type(one) is dict and type(one.get("iri")) is str


def _mapped(types: Any) -> dict[str, Any]:
    return types if type(types) is dict else {}


def _score(score: Any) -> float:
    return float(score) if is_number(score) else UNSCORED
