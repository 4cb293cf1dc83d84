"""The map page as people have it: opened from a file in a browser, looked at, clicked on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from osml_tasks.imagery.class_colours import class_colours
from osml_tasks.imagery.map_page import write_map
from osml_tasks.imagery.overview import Overview
from tests.integration.chromium import EXECUTABLE, VIEWPORT, chromium, opened, picture
from tests.unit.imagery.shown_detections import IMAGE, blank, detection
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed: apt-get install chromium")

Open = Callable[..., Page]
COLOURS = class_colours(["ship", "car"])
SHIP, BOX, FAINT = (100, 100, 200, 160), (300, 20, 340, 60), (20, 200, 60, 280)
HARBOUR = [
    detection(SHIP, "ship", 0.95, heading=12.5) | {"geometry": {"type": "Point", "coordinates": [9.93, 53.54]}},
    detection(BOX, "car", 0.7),
    detection(FAINT, "ship", 0.3),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens a map of features. At the end it has said nothing, and fetched nothing but itself."""
    file = tmp_path / "map.html"
    watches = []

    def show(features: Any, overviews: Any = None, *, browsing: Any = None, **options: Any) -> Page:
        write_map(file, overviews or {IMAGE: blank()}, features, **options)
        page, watch = open_pages.enter_context(opened(browser, file, **(browsing or {})))
        watches.append(watch)
        return page

    with ExitStack() as open_pages:
        yield show
    for watch in watches:
        assert watch.said == []
        assert [url for url in watch.fetched if not url.startswith("data:")] == [file.as_uri()]


def on_screen(page: Page, x: float, y: float, width: float = 400, height: float = 300) -> tuple[float, float]:
    """Where a pixel of the image is in the window, while the whole image is shown."""
    box = page.locator("#map").bounding_box()
    assert box is not None
    scale = min(box["width"] / width, box["height"] / height) * 0.96
    return (
        box["x"] + box["width"] / 2 + (x - width / 2) * scale,
        box["y"] + box["height"] / 2 + (y - height / 2) * scale,
    )


def colour_at(page: Page, x: float, y: float) -> tuple[int, ...]:
    across, down = on_screen(page, x, y)
    return tuple(picture(page, "#map")[round(down), round(across)].tolist())


def is_like(seen: tuple[int, ...], colour: tuple[int, ...]) -> bool:
    """The same, but for how much of the ground shines through."""
    return all(abs(one - other) < 40 for one, other in zip(seen, colour, strict=True))


def set_score(page: Page, score: float) -> None:
    page.locator("#threshold").fill(str(score))


def legend(page: Page) -> dict[str, str]:
    rows = page.locator("#classes button").all()
    return {row.locator(".name").inner_text(): row.locator(".number").inner_text() for row in rows}


def test_image_and_detections_are_seen_where_they_are(show: Open) -> None:
    page = show(HARBOUR, title="Hamburg")
    assert is_like(colour_at(page, 250, 250), (90, 90, 90))
    assert is_like(colour_at(page, 150, 100), COLOURS["ship"])
    assert is_like(colour_at(page, 300, 40), COLOURS["car"])
    assert is_like(colour_at(page, 150, 130), (90, 90, 90)), "only outlines are drawn"
    expect(page).to_have_title("Hamburg")
    expect(page.locator("h1")).to_have_text("Hamburg")
    expect(page.locator("#picture")).to_contain_text(IMAGE)


def test_better_scores_are_drawn_stronger(show: Open) -> None:
    page = show([detection(SHIP, score=1.0), detection(FAINT, score=0.05)])
    strong, faint = colour_at(page, 150, 100), colour_at(page, 40, 200)
    assert is_like(strong, COLOURS["ship"])
    assert sum(abs(a - b) for a, b in zip(faint, COLOURS["ship"], strict=True)) > 30


def test_the_slider_hides_what_scores_less(show: Open) -> None:
    page = show(HARBOUR)
    expect(page.locator("#shown")).to_have_text("3")
    assert legend(page) == {"ship": "2", "car": "1"}
    assert not is_like(colour_at(page, 40, 200), (90, 90, 90))
    set_score(page, 0.5)
    expect(page.locator("#shown")).to_have_text("2")
    expect(page.locator("#least")).to_have_text("at least 0.50")
    assert legend(page) == {"ship": "1", "car": "1"}
    wait_until(lambda: is_like(colour_at(page, 40, 200), (90, 90, 90)))
    set_score(page, 0.7)
    expect(page.locator("#shown")).to_have_text("2")  # as much as the slider says is enough
    set_score(page, 1)
    expect(page.locator("#shown")).to_have_text("0")


def test_a_class_is_hidden_and_comes_back(show: Open) -> None:
    page = show(HARBOUR)
    ship = page.locator("#classes button", has_text="ship")
    ship.click()
    expect(page.locator("#shown")).to_have_text("1")
    expect(ship).to_have_attribute("aria-pressed", "false")
    wait_until(lambda: is_like(colour_at(page, 150, 100), (90, 90, 90)))
    assert is_like(colour_at(page, 300, 40), COLOURS["car"])
    page.locator("#all").click()
    expect(page.locator("#shown")).to_have_text("3")
    wait_until(lambda: is_like(colour_at(page, 150, 100), COLOURS["ship"]))


def test_a_click_shows_what_is_known(show: Open) -> None:
    page = show(HARBOUR)
    page.mouse.click(*on_screen(page, 150, 130))
    detail = page.locator("#detail")
    expect(detail.locator(".head")).to_have_text("ship0.95")
    expect(detail.locator(".at")).to_have_text("53.54000° N, 9.93000° E")
    expect(detail.locator("dl > div", has_text="heading").locator("dd")).to_have_text("12.5")
    page.mouse.click(*on_screen(page, 250, 250))
    expect(detail).to_have_text("Click a detection to see what is known of it.")


def test_of_detections_in_each_other_a_click_takes_the_smallest(show: Open) -> None:
    page = show([detection((10, 10, 390, 290), "car"), detection(SHIP), detection((20, 20, 380, 280), "car")])
    page.mouse.click(*on_screen(page, 150, 130))
    expect(page.locator("#detail .head .name")).to_have_text("ship")


def test_all_of_it_goes_by_keyboard(show: Open) -> None:
    page = show(HARBOUR)
    page.locator("#map").focus()
    name = page.locator("#detail .head")
    for key, seen in (("n", "ship0.95"), ("n", "car0.70"), ("n", "ship0.30"), ("p", "car0.70")):
        page.keyboard.press(key)
        expect(name).to_have_text(seen)
    page.keyboard.press("Escape")
    expect(page.locator("#detail .hint")).to_be_visible()
    page.locator("#threshold").focus()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#shown")).to_have_text("2")
    page.locator("#classes button").first.focus()
    page.keyboard.press("Space")
    expect(page.locator("#classes button").first).to_have_attribute("aria-pressed", "false")


def test_wheel_drag_and_buttons_move_the_image_and_fit_brings_it_back(show: Open) -> None:
    page = show(HARBOUR)
    page.mouse.move(*on_screen(page, 150, 130))
    before = picture(page, "#map")
    changes: list[Callable[[], None]] = [
        lambda: page.mouse.wheel(0, -400),
        lambda: drag(page, 80, 50),
        lambda: page.locator("#farther").click(),
        lambda: page.locator("#closer").click(),
        lambda: page.locator("#map").press("ArrowLeft"),
    ]
    for change in changes:
        last = picture(page, "#map")
        change()
        wait_until(lambda last=last: differ(picture(page, "#map"), last))  # type: ignore[misc]
    page.locator("#fit").click()
    page.mouse.move(*on_screen(page, 150, 130))
    page.evaluate("document.activeElement.blur()")
    wait_until(lambda: not differ(picture(page, "#map"), before))


def test_the_wheel_zooms_to_what_is_under_the_pointer(show: Open) -> None:
    page = show(HARBOUR)
    page.mouse.move(*on_screen(page, 200, 130))
    page.mouse.wheel(0, -600)
    page.mouse.move(*on_screen(page, 199, 130))
    page.mouse.click(*on_screen(page, 200, 130))
    expect(page.locator("#detail .head")).to_have_text("ship0.95")


def test_two_fingers_zoom(show: Open) -> None:
    page = show(HARBOUR, browsing={"has_touch": True})
    before = picture(page, "#map")
    touch = page.context.new_cdp_session(page)
    x, y = on_screen(page, 150, 130)

    def fingers(kind: str, apart: float) -> None:
        points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}] if apart else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", 20)
    for apart in range(25, 100, 5):
        fingers("touchMove", apart)
    fingers("touchEnd", 0)
    wait_until(lambda: differ(picture(page, "#map"), before))
    page.touchscreen.tap(x, y)
    expect(page.locator("#detail .head")).to_have_text("ship0.95")


def test_several_images_are_chosen_from(show: Open) -> None:
    other = detection(BOX, "car", sourceMetadata=[{"location": "b.tif"}])
    page = show([*HARBOUR, other], {IMAGE: blank(), "b.tif": blank(grey=200)})
    expect(page.locator("#placed")).to_have_text("3")
    page.locator("#image").select_option("b.tif")
    expect(page.locator("#placed")).to_have_text("1")
    assert legend(page) == {"car": "1"}
    wait_until(lambda: is_like(colour_at(page, 150, 100), (200, 200, 200)))


def test_the_page_says_what_it_does_not_draw(show: Open) -> None:
    shapeless = detection(SHIP, imageGeometry=None, imageBBox=None)
    page = show([*HARBOUR, shapeless], most=2)
    assert page.locator("#notes span").all_inner_texts() == [
        "The best 2 of 3 detections are on this page.",
        "1 more have no place on an image, and are not drawn.",
    ]
    expect(page.locator("#shown")).to_have_text("2")


def test_a_map_of_nothing_is_a_map(show: Open) -> None:
    page = show([])
    expect(page.locator("#shown")).to_have_text("0")
    set_score(page, 0.5)
    page.mouse.click(*on_screen(page, 150, 130))
    assert is_like(colour_at(page, 150, 100), (90, 90, 90))


def test_points_and_lines_are_seen_and_clicked(show: Open) -> None:
    point = detection((0, 0, 1, 1), "car", imageGeometry={"type": "Point", "coordinates": [300, 200]})
    line = detection((0, 0, 1, 1), "ship", imageGeometry={"type": "LineString", "coordinates": [[50, 50], [150, 150]]})
    page = show([point, line])
    for x, y, name in ((300, 200, "car"), (100, 100, "ship")):
        assert is_like(colour_at(page, x, y), COLOURS[name])
        page.mouse.click(*on_screen(page, x, y))
        expect(page.locator("#detail .head .name")).to_have_text(name)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_scheme_of_its_reader(show: Open, scheme: str) -> None:
    page = show(HARBOUR, browsing={"color_scheme": scheme})
    paper = picture(page, "aside")[2, 2].mean()
    assert paper > 200 if scheme == "light" else paper < 60


def test_a_small_window_has_room_for_both(show: Open) -> None:
    page = show(HARBOUR, browsing={"viewport": {"width": 390, "height": 780}})
    box = page.locator("#map").bounding_box()
    assert box is not None and box["width"] == 390 and box["height"] > 300
    page.mouse.click(*on_screen(page, 150, 130))
    expect(page.locator("#detail .head")).to_have_text("ship0.95")


def test_what_a_model_wrote_is_text(show: Open) -> None:
    hostile = "</script><script>alert('ran')</script><img src=x onerror=alert('ran')>\u2028{{script}}"
    location = hostile + ".tif"
    feature = detection(SHIP, hostile, sourceMetadata=[{"location": location}], **{hostile: hostile})
    page = show([feature], {location: blank(), "b": blank()}, title=hostile)
    page.mouse.click(*on_screen(page, 150, 130))
    detail = page.locator("#detail")
    assert detail.locator(".head .name").text_content() == hostile
    assert hostile in detail.locator("dt").all_text_contents()
    assert hostile in detail.locator("dd").all_text_contents()
    assert page.locator("#classes .name").text_content() == hostile
    assert page.locator("h1").text_content() == hostile
    assert page.locator("option").first.text_content() == location
    assert page.locator("img").count() == 0


def test_nothing_else_would_run_or_be_fetched(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "map.html"
    write_map(file, {IMAGE: blank()}, HARBOUR)
    with opened(browser, file) as (page, watch):
        page.evaluate("""async () => {
            const add = (kind, values) => document.body.append(Object.assign(document.createElement(kind), values));
            add("script", { textContent: "window.ran = true" });
            add("img", { src: "http://127.0.0.1:9/pixel.png" });
            document.body.insertAdjacentHTML("beforeend", "<b onclick='window.ran = true'>b</b>");
            document.body.lastChild.click();
            await fetch("http://127.0.0.1:9/").catch(() => {});
        }""")
        assert page.evaluate("window.ran") is None
        refused = [said for said in watch.said if "Content Security Policy" in said]
        assert len(refused) >= 4


@pytest.mark.timeout(600)
def test_fifty_thousand_detections_are_drawn_and_filtered(show: Open, tmp_path: Path) -> None:
    count, side = 50_000, 20_000
    lots = random.Random(5)
    corners = [(lots.random() * side, lots.random() * side) for _ in range(count)]
    features = [
        detection((x, y, x + 30, y + 14), ("ship", "car")[i % 2], score=(i % 1000) / 1000, track=f"T-{i}")
        for i, (x, y) in enumerate(corners)
    ]
    page = show(features, {IMAGE: Overview(blank().pixels, side, side)})
    assert (tmp_path / "map.html").stat().st_size < 6_000_000
    expect(page.locator("#shown")).to_have_text("50,000")
    full = coloured(page)
    assert full > 0.1
    set_score(page, 0.99)
    expect(page.locator("#shown")).to_have_text("500", timeout=30_000)
    wait_until(lambda: 0 < coloured(page) < full / 10)
    page.locator("#map").press("n")
    expect(page.locator("#detail dl")).to_contain_text("T-999")


def drag(page: Page, across: float, down: float) -> None:
    x, y = VIEWPORT["width"] / 3, VIEWPORT["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + across, y + down, steps=4)
    page.mouse.up()


def coloured(page: Page) -> float:
    """The share of the map that is not grey."""
    pixels = picture(page, "#map")
    return float((np.ptp(pixels, axis=-1) > 20).mean())


def differ(one: Any, other: Any) -> bool:
    """Whether more than a few pixels are not the same."""
    return bool((np.abs(one - other).max(axis=-1) > 30).mean() > 0.002)
