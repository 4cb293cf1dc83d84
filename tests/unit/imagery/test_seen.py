"""What merging reads of a placed feature, and several streams of them as one."""

from __future__ import annotations

import pytest

from osml_tasks.imagery.seen import Seen, in_order
from tests.unit.imagery.detections import detection


def test_a_placed_feature_is_read() -> None:
    line = detection((10, 20, 110, 120), [15, 25, 35.5, 45], 0.7, "boat", image="quay.tif")
    assert Seen.from_line(line) == Seen(line, "quay.tif", (10, 20, 110, 120), (15, 25, 35.5, 45), "boat", 0.7)


@pytest.mark.parametrize("line", [b'{"properties":{}}', b'{"properties":{"sourceMetadata":[{"location":"a"}]}}'])
def test_what_was_not_placed_is_refused(line: bytes) -> None:
    with pytest.raises(KeyError):
        Seen.from_line(line)


def test_the_parts_of_a_retry_are_put_where_they_belong() -> None:
    def seen(image: str, left: int, top: int) -> Seen:
        return Seen.from_line(detection((left, top, left + 9, top + 9), None, image=image))

    first = [seen("b.tif", 0, 0), seen("b.tif", 0, 5), seen("a.tif", 0, 0)]
    retried = [seen("b.tif", 5, 0), seen("a.tif", 5, 0), seen("a.tif", 0, 5)]
    both = [first[0], retried[0], first[1], first[2], *retried[1:]]
    assert list(in_order([first, retried], {"b.tif": 0, "a.tif": 1})) == both
