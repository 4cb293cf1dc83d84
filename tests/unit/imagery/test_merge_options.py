"""What one may ask of merging."""

from __future__ import annotations

from typing import Any

import pytest

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.imagery.merge_options import MergeMethod, MergeOn, MergeOptions


def test_words_name_the_method_and_what_is_compared() -> None:
    options = MergeOptions("soft-nms", on="box")  # type: ignore[arg-type]
    assert (options.method, options.on) == (MergeMethod.SOFT_NMS, MergeOn.BOX)
    assert options.method is MergeMethod.SOFT_NMS


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"iou": 0}, "0: give a number above 0 and at most 1"),
        ({"iou": 1.01}, "1.01"),
        ({"iou": float("nan")}, "nan"),
        ({"iou": "0.5"}, "'0.5'"),
        ({"score_threshold": -0.1}, "-0.1: give a number that is 0 or more"),
        ({"score_threshold": float("nan")}, "nan"),
        ({"score_threshold": float("inf")}, "inf"),
        ({"score_threshold": None}, "None"),
        ({"method": "wbf"}, "'wbf': give one of nms, soft-nms, none"),
        ({"on": None}, "None: give one of polygon, box"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ExtensionConfigurationError) as refused:
        MergeOptions(**wrong)
    [name] = wrong
    assert str(refused.value).startswith(f"merge {name} is ")
    assert named in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
