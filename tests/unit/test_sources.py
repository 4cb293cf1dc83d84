"""What a user calls a source, and the tiles that are found behind it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osml_tasks.endpoint import MAX_INPUT_BYTES
from osml_tasks.errors import SourceError
from osml_tasks.s3 import S3Uri
from osml_tasks.sources import _choose, find_tiles, one_tile
from osml_tasks.tile import Tile


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(name.encode())


def names(*sources: str) -> list[str]:
    return [tile.name for tile in find_tiles(sources)]


def refusal(*sources: str) -> str:
    with pytest.raises(SourceError) as caught:
        find_tiles(sources)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_a_tile_with_its_path_and_size(here: Path) -> None:
    make("a.png")
    (tile,) = find_tiles(["a.png"])
    assert (tile.name, tile.path, tile.uri, tile.size) == ("a.png", str(here / "a.png"), None, 5)


def test_tiles_keep_the_names_that_the_user_wrote(here: Path) -> None:
    make("d/a.png", "d/b.png")
    assert names("d/a.png") == ["d/a.png"]
    assert names("d") == names("d/") == ["d/a.png", "d/b.png"]
    assert names("d/*.png") == ["d/a.png", "d/b.png"]
    assert names(str(here / "d/a.png")) == [str(here / "d/a.png")]


def test_a_name_keeps_the_dot_that_it_was_written_with() -> None:
    make("a.png")
    assert names("./a.png") == ["./a.png"]


def test_sources_keep_their_order() -> None:
    make("b.png", "a.png", "d/c.png")
    assert names("d", "b.png", "a.png") == ["d/c.png", "b.png", "a.png"]


def test_a_directory_is_searched_to_the_bottom_in_the_order_of_names() -> None:
    make("d/b/2.png", "d/a/9.png", "d/a/10.png", "d/b/deep/1.png", "d/c.png")
    assert names("d") == sorted(names("d"))
    assert len(names("d")) == 5


def test_hidden_files_and_directories_are_left_out() -> None:
    make("d/.hidden.png", "d/.cache/a.png", "d/a.png")
    assert names("d") == names("d/*") == names("d/**") == ["d/a.png"]


def test_a_hidden_file_that_is_named_is_meant() -> None:
    make(".hidden.png")
    assert names(".hidden.png") == [".hidden.png"]


def test_linked_directories_are_not_followed() -> None:
    make("d/a.png", "e/b.png")
    Path("d/loop").symlink_to("..", target_is_directory=True)
    Path("d/linked.png").symlink_to(Path("e/b.png").absolute())
    assert names("d") == ["d/a.png", "d/linked.png"]


def test_a_glob_finds_files_in_order() -> None:
    make("d/b.png", "d/a.png", "d/a.txt", "d/x.png/inside.png", "d/deep/er/c.png")
    assert names("d/*.png") == ["d/a.png", "d/b.png"]
    assert names("d/**/*.png") == ["d/a.png", "d/b.png", "d/deep/er/c.png", "d/x.png/inside.png"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file() -> None:
    make("a[1].png", "a1.png")
    assert names("a[1].png") == ["a[1].png"]


def test_a_file_that_is_named_twice_is_one_tile(here: Path) -> None:
    make("d/a.png", "d/b.png")
    assert names("d/b.png", "d", str(here / "d/a.png"), "d/*.png") == ["d/b.png", "d/a.png"]


def test_a_file_that_is_named_by_way_of_its_parent_is_the_same_tile() -> None:
    make("d/a.png")
    assert names("d/a.png", "d/../d/a.png") == ["d/a.png"]


@pytest.mark.parametrize("source", ["empty", "empty/*.png", "hidden"])
def test_a_source_without_tiles_is_refused_by_its_name(source: str) -> None:
    Path("empty").mkdir()
    make("hidden/.a.png", "a.png")
    assert repr(source) in refusal("a.png", source)


def test_a_source_that_does_not_exist_is_refused_by_its_name() -> None:
    assert "'nowhere.png' does not exist" in refusal("nowhere.png")


def test_an_empty_source_does_not_mean_the_directory_at_hand() -> None:
    make("secret.txt")
    assert "''" in refusal("")


def test_a_link_that_leads_nowhere_is_refused_by_its_name() -> None:
    make("d/a.png")
    Path("d/gone.png").symlink_to("nowhere")
    assert "d/gone.png" in refusal("d")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_refused_by_its_name() -> None:
    make("d/a.png")
    Path("d/a.png").chmod(0)
    assert "'d/a.png' cannot be read" in refusal("d")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_directory_that_cannot_be_read_is_refused_by_its_name() -> None:
    make("d/a.png", "d/locked/b.png")
    Path("d/locked").chmod(0)
    try:
        assert "d/locked" in refusal("d")
    finally:
        Path("d/locked").chmod(0o700)


@pytest.mark.timeout(60)
def test_a_pipe_is_refused_rather_than_waited_for() -> None:
    os.mkfifo("pipe.png")
    assert "pipe.png" in refusal("pipe.png")


@pytest.mark.skipif(os.fsencode("\udcff") != b"\xff", reason="file names are text here")
def test_a_name_that_is_no_unicode_is_refused_or_can_be_written_down() -> None:
    Path("d").mkdir()
    Path(os.fsdecode(b"d/\xff.png")).write_bytes(b"x")
    try:
        (tile,) = find_tiles(["d"])
    except SourceError as error:
        assert str(error).encode()
    else:
        assert Tile.from_json(Tile(0, str(tile.path), tile.name).to_json()).name == tile.name


def test_a_tile_of_a_gigabyte_is_taken_and_a_larger_one_is_refused() -> None:
    make("a.tif")
    os.truncate("a.tif", MAX_INPUT_BYTES)
    assert find_tiles(["a.tif"])[0].size == MAX_INPUT_BYTES
    os.truncate("a.tif", MAX_INPUT_BYTES + 1)
    message = refusal("a.tif")
    assert "a.tif" in message
    assert "1,000,000,001" in message


ODD_NAMES = [
    *(
        "ü ñ 船.png",
        "e\u0301.png",
        "\u00e9.png",
        "\U0001f6a2.tif",
        "\u202egnp.exe",
        "a\u2028b",
        "a\x85b",
        "\x1b[31m",
        "\x7f",
    ),
    *(
        "two\nlines",
        "a\tb",
        " ",
        " lead",
        "trail ",
        "-dash",
        "--",
        "-e",
        "%41%00",
        "#?&+=;@",
        "it's",
        'say "a"',
        "back\\slash",
    ),
    *(
        "*",
        "[a]",
        "?",
        "{a,b}",
        "~",
        "$HOME",
        "`id`",
        "a..b",
        "x" * 255,
        "船" * 85,
        "a.tar.gz",
        "no_ending.",
    ),
]


def test_files_of_any_name_are_tiles_of_that_name() -> None:
    make(*(f"d/{name}" for name in ODD_NAMES), *(f"d/{name}/a.png" for name in ["sub dir", "sub\nline"]))
    found = find_tiles(["d"])
    assert len(found) == len(ODD_NAMES) + 2
    for tile in found:
        assert tile.path is not None
        assert Path(tile.path).read_bytes() == tile.name.encode()
        line = Tile(0, str(tile.path), tile.name).to_json()
        assert Tile.from_json(line).name == tile.name
        assert one_tile(0, tile.name) == tile


def test_files_of_the_same_name_in_different_folders_are_tiles_of_their_own() -> None:
    make("d/a/t.png", "d/b/t.png", "d/t.png")
    assert names("d") == ["d/a/t.png", "d/b/t.png", "d/t.png"]


def test_a_path_as_long_as_the_system_takes_is_a_tile(here: Path) -> None:
    folder = here
    while len(str(folder)) < 3700:
        folder = folder / ("d" * 200)
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(b"x")
    assert find_tiles([here])[0].path == str(folder / "a.png")


class BytesPath:
    """A path as a scan of a directory named by bytes gives it."""

    def __fspath__(self) -> bytes:
        return b"d/a.png"


def test_a_path_in_bytes_is_a_path() -> None:
    make("d/a.png")
    (tile,) = find_tiles([BytesPath()])  # type: ignore[list-item]
    assert (tile.name, tile.body) == ("d/a.png", None)


@pytest.mark.parametrize(
    "source",
    [
        *("x" * 256, "x/" * 3000, "*" + "x" * 5000, "\0", "a\0b", "*\0", "\ud800", "*\udcff", "s3://bucket/\ud800"),
        *(
            "s3://",
            "s3://b",
            "s3:///a",
            "S3://bucket/a",
            "http://x/a.png",
            "file:///a.png",
            "a.png/b",
            "\n",
            "\x1b[31m",
        ),
        *({}, {"image": "a.png"}, {"image_path": None}, {"a\nb": 1}, {"image_path": {"image_path": b"x"}}, 7, None, []),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(source: Any) -> None:
    make("a.png")
    for find in (lambda: find_tiles([source]), lambda: one_tile(0, source)):
        with pytest.raises(SourceError) as caught:
            find()
        assert str(caught.value).isprintable()


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=()), max_size=20).filter(lambda text: not text.startswith("s3://")))
def test_any_text_is_a_tile_or_refused_in_one_line(text: str) -> None:
    with suppress(SourceError):
        try:
            one_tile(0, text)
        except SourceError as error:
            assert str(error).isprintable()
            raise


KEYS = st.text(max_size=12) | st.text("ab/.%*?", max_size=12)


@settings(deadline=None, derandomize=True)
@given(KEYS, st.lists(KEYS, max_size=6, unique=True))
def test_an_s3_source_stands_for_objects_under_its_key_and_for_no_others(key: str, keys: list[str]) -> None:
    found = _choose(S3Uri("bucket", key), listed(*(one for one in keys if one.startswith(key))))
    for tile in found:
        assert tile.uri is not None
        assert S3Uri.parse(tile.name) == tile.uri
        assert tile.uri.key == key or tile.uri.key.startswith(key if key.endswith("/") or not key else f"{key}/")
        assert tile.uri.key in keys
        assert not tile.uri.key.endswith("/")


def listed(*keys: str) -> list[dict[str, object]]:
    return [{"Key": key, "Size": 1} for key in keys]


@pytest.mark.parametrize(
    ("key", "chosen"),
    [
        ("d/a.png", ["d/a.png"]),
        ("d", ["d/a.png", "d/e/b.png"]),
        ("d/", ["d/a.png", "d/e/b.png"]),
        ("", ["d/a.png", "d/e/b.png", "da.png"]),
        ("d/a", []),
    ],
)
def test_an_s3_source_is_an_object_or_what_lies_under_it(key: str, chosen: list[str]) -> None:
    everything = ["d/", "d/a.png", "d/e/b.png", "da.png"]
    found = _choose(S3Uri("bucket", key), listed(*(name for name in everything if name.startswith(key))))
    assert [tile.name for tile in found] == [f"s3://bucket/{name}" for name in chosen]
