"""What a map page carries, and that nothing in it is markup. How it looks: ``tests/integration/test_map_page.py``."""

from __future__ import annotations

import re
import tempfile
from base64 import b64encode
from hashlib import sha256
from html import escape
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.imagery.map_page import write_map
from tests.unit.imagery.shown_detections import IMAGE, blank, column, detection, known, page_data

HOSTILE = ["</script><script>alert(1)</script>", "<!--<script>", "]]>", "\u2028\u2029", "{{data}}", '"\\', "\0\x1b[31m"]
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=60))


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "map.html"


def test_each_detection_has_its_class_score_and_points(page: Path) -> None:
    near, far = detection((10, 20, 30, 40), "ship", 0.75), detection((350.04, 250, 351, 260), "aircraft", 0.5)
    write_map(page, {IMAGE: blank()}, [near, far])
    data = page_data(page)
    image = data["images"][0]
    assert (image["name"], image["width"], image["height"]) == (IMAGE, 400, 300)
    assert [data["classes"][one]["name"] for one in column(image["classes"])] == ["ship", "aircraft"]
    assert column(image["scores"], "<f4") == [0.75, 0.5]
    assert column(image["lengths"]) == [4, 4]
    assert places(image["xs"]) == [10, 30, 30, 10, 350, 351, 351, 350]
    assert places(image["ys"]) == [20, 20, 40, 40, 250, 250, 260, 260]


@pytest.mark.parametrize(
    ("geometry", "lengths"),
    [
        ({"type": "Point", "coordinates": [5, 6]}, [-1]),
        ({"type": "MultiPoint", "coordinates": [[5, 6], [7, 8]]}, [-1, -1]),
        ({"type": "LineString", "coordinates": [[0, 0], [5, 6], [7, 8]]}, [-3]),
        ({"type": "MultiLineString", "coordinates": [[[0, 0], [5, 6]], [[1, 1], [2, 2]]]}, [-2, -2]),
        (
            {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]], [[2, 1], [3, 1], [3, 2], [2, 1]]]},
            [3, 3],
        ),
        ({"type": "MultiPolygon", "coordinates": [[[[0, 0], [9, 0], [9, 9], [0, 0]]]] * 2}, [3, 3]),
        ({"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [5, 6]}] * 2}, [-1, -1]),
        (None, [4]),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_every_shape_is_drawn_by_its_strokes_and_a_box_in_place_of_none(
    page: Path, geometry: Any, lengths: list[int]
) -> None:
    write_map(page, {IMAGE: blank()}, [detection((0, 0, 9, 9), imageGeometry=geometry)])
    image = page_data(page)["images"][0]
    assert column(image["lengths"]) == lengths
    assert column(image["strokes"]) == [len(lengths)]


@pytest.mark.parametrize(
    "shapeless",
    [
        {"imageGeometry": None, "imageBBox": None},
        {"imageGeometry": {"type": "Polygon", "coordinates": []}, "imageBBox": [1, 2, 3]},
        {"imageGeometry": {"type": "Blob", "coordinates": [1, 2]}},
        {"imageGeometry": {"type": "LineString", "coordinates": [[1, 2], ["x", None]]}},
        {"imageGeometry": {"type": "Point", "coordinates": [float("nan"), 0]}},
        {"imageGeometry": {"type": "Point", "coordinates": [1e300, 0]}},
        {"sourceMetadata": [{"location": "elsewhere.tif"}]},
        {"sourceMetadata": "?"},
    ],
)
def test_what_has_no_place_on_the_image_is_counted_only(page: Path, shapeless: dict[str, Any]) -> None:
    write_map(page, {IMAGE: blank()}, [detection((0, 0, 9, 9)), detection((0, 0, 9, 9), **shapeless)])
    data = page_data(page)
    assert (data["features"], data["unplaced"], data["leftOut"]) == (2, 1, 0)
    assert len(known(data["images"][0])) == 1


def test_detections_are_on_the_image_that_they_are_of(page: Path) -> None:
    names = ["a.tif", "b.tif", "a.tif"]
    features = [detection((0, 0, 9, 9), sourceMetadata=[{"location": name}]) for name in names]
    write_map(page, {"a.tif": blank(), "b.tif": blank(), "c.tif": blank()}, features)
    assert [len(known(image)) for image in page_data(page)["images"]] == [2, 1, 0]


def test_of_too_many_the_best_are_kept_in_their_order(page: Path) -> None:
    scores = [0.1, 0.9, 0.2, 0.8, 0.3]
    write_map(page, {IMAGE: blank()}, (detection((0, 0, 9, 9), score=score) for score in scores), most=3)
    data = page_data(page)
    assert column(data["images"][0]["scores"], "<f4") == pytest.approx([0.9, 0.8, 0.3])
    assert data["leftOut"] == 2


def test_of_equal_scores_those_kept_lie_all_over_the_image(page: Path) -> None:
    write_map(page, {IMAGE: blank()}, (detection((x, 0, x + 1, 1)) for x in range(1000)), most=100)
    corners = places(page_data(page)["images"][0]["xs"])[::4]
    assert all(any(start <= x < start + 100 for x in corners) for start in range(0, 1000, 100))


def test_a_click_tells_what_the_model_said_and_where_on_the_globe(page: Path) -> None:
    feature = detection((0, 0, 9, 9), heading=12.5, crew={"size": 3, "names": ["Ann", "Bo"]})
    feature |= {"geometry": {"type": "Point", "coordinates": [179, -10]}, "bbox": [178.5, -10, -179.5, -9]}
    write_map(page, {IMAGE: blank()}, [feature])
    [told] = known(page_data(page)["images"][0])
    rows = dict(told["rows"])
    assert told["position"] == "9.50000° S, 179.50000° E"
    assert (rows["heading"], rows["crew.size"], rows["crew.names"]) == ("12.5", "3", '["Ann", "Bo"]')
    assert rows["sourceMetadata[0].tileBBox"] == "[0, 0, 512, 512]"
    assert not any(name.startswith("image") for name in rows)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_any_text_comes_through_and_none_ends_the_script(title: str, name: str, key: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory, "map.html")
        key = "k" + key
        feature = detection((0, 0, 9, 9), name, sourceMetadata=[{"location": name}], **{key: text})
        write_map(page, {name: blank()}, [feature], title=title)
        content = page.read_bytes().decode()
        data = page_data(page)
    image = data["images"][0]
    assert image["name"] == name
    assert data["classes"][column(image["classes"])[0]]["name"] == name
    assert [key, text] in known(image)[0]["rows"]
    assert len(re.findall(r"<script", content)) == len(re.findall(r"</script", content)) == 2
    assert f"<title>{escape(title)}</title>" in content


def test_no_other_script_or_style_may_run(page: Path) -> None:
    write_map(page, {IMAGE: blank()}, [])
    content = page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', content)
    script, style = (
        re.search(r"<script>(.*)</script>", content, re.DOTALL),
        re.search(r"<style>(.*)</style>", content, re.DOTALL),
    )
    assert policy and script and style
    assert policy[1] == (
        f"default-src 'none'; img-src data:; style-src {hash_of(style[1])}; script-src {hash_of(script[1])}"
    )
    assert "innerHTML" not in content


def test_a_map_needs_an_image(page: Path) -> None:
    with pytest.raises(ValueError, match="a map needs an image"):
        write_map(page, {}, [])


def places(packed: str) -> list[float]:
    return [round(value / 10, 1) for value in accumulate(column(packed))]


def hash_of(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
