"""What is written after ``-o``: which place and format that is, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.result_files import target as module
from osml_tasks.result_files.target import FileFormat, Target, parse_target
from osml_tasks.s3_uri import S3Uri


def refusal(name: str, file_format: str | None = None) -> str:
    with pytest.raises(ExtensionConfigurationError) as caught:
        parse_target(name, file_format)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        ("out.geojson", "geojson"),
        ("out.json", "geojson"),
        ("OUT.GeoJSON", "geojson"),
        ("a.b/out", "geojson"),
        ("out", "geojson"),
        ("out.of.order", "geojson"),
        (".fgb", "geojson"),
        ("/dev/stdout", "geojson"),
        ("out.geojsonl", "geojsonl"),
        ("out.geojsonseq", "geojsonl"),
        ("out.ndjson", "geojsonl"),
        ("out.jsonl", "geojsonl"),
        ("out.fgb", "fgb"),
        ("out.tar.FGB", "fgb"),
        ("out.gpkg", "gpkg"),
        ("out.parquet", "parquet"),
        ("out.geoparquet", "parquet"),
    ],
)
def test_the_ending_says_the_format(name: str, file_format: str) -> None:
    assert parse_target(name) == Target(name, Path(name), FileFormat(file_format))


def test_an_object_is_named_by_its_uri() -> None:
    target = parse_target("s3://bucket/a/out.gpkg")
    assert target == Target("s3://bucket/a/out.gpkg", S3Uri("bucket", "a/out.gpkg"), FileFormat.GEOPACKAGE)


def test_a_directory_or_prefix_takes_a_file_for_each_image(tmp_path: Path) -> None:
    for name in ("new/", str(tmp_path), "s3://bucket/a/"):
        target = parse_target(name)
        assert (target.per_image, target.format) == (True, FileFormat.GEOJSON)
        assert parse_target(name, "fgb").format is FileFormat.FLATGEOBUF
    # A directory's name has no ending, whatever it looks like.
    (tmp_path / "a.fgb").mkdir()
    assert parse_target(str(tmp_path / "a.fgb")).format is FileFormat.GEOJSON


def test_the_format_may_be_said_where_no_ending_does() -> None:
    assert parse_target("out", "fgb").format is FileFormat.FLATGEOBUF
    assert parse_target("s3://bucket/out", "gpkg").format is FileFormat.GEOPACKAGE
    assert parse_target("out.json", "geojson").format is FileFormat.GEOJSON
    assert "'out.json' ends as geojson, and the format is to be fgb" in refusal("out.json", "fgb")
    assert "'shp' is no format: name one of geojson, geojsonl, fgb, gpkg, parquet" in refusal("out", "shp")


@pytest.mark.parametrize("name", ["out.shp", "out.KML", "out.geojson.gz", "s3://bucket/out", "s3://bucket/out.txt"])
def test_an_ending_that_promises_something_else_is_refused(name: str) -> None:
    assert re.search(r"no ending that is known: use one of \.geojson, .*\.fgb, .*\.geoparquet$", refusal(name))


@pytest.mark.parametrize(
    "name",
    [
        *("s3://bucket", "s3://bucket/", "s3://bucket//", "s3://", "s3://B/out.fgb"),
        *("s3://bucket/a//out.fgb", "s3://bucket/../out.fgb", "s3://bucket/a\nb.fgb"),
    ],
)
def test_what_names_no_object_is_refused(name: str) -> None:
    refusal(name)


@pytest.mark.parametrize("ending", ["fgb", "gpkg", "parquet"])
def test_a_format_that_cannot_be_written_here_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    target = parse_target(f"out.{ending}")
    target.check_extra()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ExtensionConfigurationError, match=r"is missing, .* install osml-tasks\[formats\]"):
        target.check_extra()
    parse_target("out.geojsonl").check_extra()
