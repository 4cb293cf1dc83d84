"""How what overlapping tiles saw twice becomes one: what the user chose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.geometry import is_number, shown

_Name = TypeVar("_Name", bound=StrEnum)


class MergeMethod(StrEnum):
    """What happens to the lesser one of two that overlap."""

    NMS = "nms"
    SOFT_NMS = "soft-nms"
    NONE = "none"


class MergeOn(StrEnum):
    """What the overlap of two features is measured on."""

    POLYGON = "polygon"
    BOX = "box"


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """How features of overlapping tiles are merged.

    :ivar method: ``nms`` leaves the lesser one out, ``soft-nms`` lowers its score, ``none`` keeps everything.
    :ivar iou: from which overlap two features are one and the same, above 0 and at most 1.
    :ivar score_threshold: features below it are left out, whatever the method; 0 leaves none out.
    :ivar on: ``polygon``, where both features have one, else ``box``.
    """

    method: MergeMethod = MergeMethod.NMS
    iou: float = 0.5
    score_threshold: float = 0.0
    on: MergeOn = MergeOn.POLYGON

    def __post_init__(self) -> None:
        """Refuse what makes no sense, and take words for what they name.

        :raises ExtensionConfigurationError: with the option, its value, and what it may be.
        """
        # A frozen dataclass has no other way to correct what it was given.
        object.__setattr__(self, "method", _named(MergeMethod, "method", self.method))
        object.__setattr__(self, "on", _named(MergeOn, "on", self.on))
        if not (is_number(self.iou) and 0 < self.iou <= 1):
            raise ExtensionConfigurationError(f"merge iou is {shown(self.iou)}: give a number above 0 and at most 1")
        if not (is_number(self.score_threshold) and 0 <= self.score_threshold < math.inf):
            raise ExtensionConfigurationError(
                f"merge score_threshold is {shown(self.score_threshold)}: give a number that is 0 or more"
            )


def _named(names: type[_Name], option: str, value: Any) -> _Name:
    try:
        return names(value)
    except ValueError:
        raise ExtensionConfigurationError(f"merge {option} is {shown(value)}: give one of {', '.join(names)}") from None
