"""Results in every format, to paths and to S3; where one cannot be written, nothing of it is left."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile

import boto3
import geopandas
import pyogrio
import pytest

from osml_tasks.celery import new_app
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import connect
from osml_tasks.errors import ExtensionConfigurationError, ObjectNotFoundError, S3AccessError, VectorFileError
from osml_tasks.job_handle import JobHandle
from osml_tasks.result_files.saving import save
from osml_tasks.result_files.target import FileFormat, parse_target
from osml_tasks.s3 import S3Manager, S3Uri
from tests.integration.endpoints import ELSEWHERE
from tests.integration.faulty_way import FaultyWay, access_denied
from tests.integration.fleet import INPUTS, Fleet, write_tiles
from tests.unit.result_files.collections import collection_of, feature, point

RESULT = S3Uri(INPUTS, "result-files/result")
IMAGES = ["a/scene.tif", "b/scene.tif", "c/empty.tif"]
FEATURES = [feature(point(1, 2), image=IMAGES[0], n=n) for n in range(3)] + [feature(None, image=IMAGES[1], n=3)]


@pytest.fixture
def way(fleet: Fleet) -> Iterator[FaultyWay]:
    with FaultyWay(fleet.env["AWS_ENDPOINT_URL_S3"]) as way:
        yield way


@pytest.fixture
def s3(here: Fleet, way: FaultyWay, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Manager]:
    """S3 with a result in it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", way.url)
    manager = S3Manager(boto3.Session(), sleep=lambda seconds: None)
    manager.put(RESULT, collection_of(FEATURES))
    yield manager
    way.faults.clear()
    places = (RESULT.parent, S3Uri(ELSEWHERE, "results"))
    manager.delete(found.uri for place in places for found in manager.list(place))


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is not ready yet is kept for S3."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    return scratch


def numbers(content: bytes, file_format: str) -> list[int]:
    """The property ``n`` of each feature in a file, as another program reads it."""
    if file_format == "geojson":
        return sorted(one["properties"]["n"] for one in json.loads(content)["features"])
    if file_format == "geojsonl":
        return sorted(json.loads(line)["properties"]["n"] for line in content.splitlines())
    if file_format == "parquet":
        return sorted(geopandas.read_parquet(io.BytesIO(content))["n"])
    with NamedTemporaryFile(suffix=f".{file_format}") as file:
        file.write(content)
        file.flush()
        return sorted(pyogrio.read_dataframe(file.name)["n"])


@pytest.mark.parametrize("file_format", FileFormat)
def test_a_result_is_the_same_in_each_format_and_place(
    s3: S3Manager, tmp_path: Path, scratch: Path, file_format: str
) -> None:
    path = tmp_path / f"out.{file_format}"
    path.write_text("what was there before")
    save(s3, RESULT, parse_target(str(path)))
    assert numbers(path.read_bytes(), file_format) == [0, 1, 2, 3]
    uri = f"s3://{ELSEWHERE}/results/out.{file_format}"
    save(s3, RESULT, parse_target(uri))
    assert numbers(s3.get(S3Uri.parse(uri)), file_format) == [0, 1, 2, 3]
    assert {one.name for one in tmp_path.iterdir()} == {path.name, "scratch"}
    assert [*scratch.iterdir()] == []


@pytest.mark.parametrize("file_format", ["geojson", "geojsonl", "parquet"])
def test_images_get_files_of_their_own(s3: S3Manager, tmp_path: Path, scratch: Path, file_format: str) -> None:
    names = [f"{stem}.{file_format}" for stem in ("scene", "scene_2", "empty")]
    new = tmp_path / "new"
    for _ in range(2):
        save(s3, RESULT, parse_target(f"{new}/", file_format), IMAGES)
        assert {one.name for one in new.iterdir()} == set(names)
    prefix = f"s3://{ELSEWHERE}/results/"
    save(s3, RESULT, parse_target(prefix, file_format), IMAGES)
    for read in (lambda name: (new / name).read_bytes(), lambda name: s3.get(S3Uri.parse(prefix + name))):
        assert [numbers(read(name), file_format) for name in names if "empty" not in name] == [[0, 1, 2], [3]]
    assert [*scratch.iterdir()] == []


@pytest.mark.parametrize("file_format", FileFormat)
def test_what_cannot_be_written_leaves_nothing(
    s3: S3Manager, way: FaultyWay, tmp_path: Path, scratch: Path, file_format: str
) -> None:
    way.shows(access_denied(), "PUT", key="results/")
    uri = f"s3://{ELSEWHERE}/results/out.{file_format}"
    with pytest.raises(S3AccessError):
        save(s3, RESULT, parse_target(uri))
    assert s3.head(S3Uri.parse(uri)) is None
    path = tmp_path / f"out.{file_format}"
    path.write_text("before")
    with pytest.raises(ObjectNotFoundError):
        save(s3, RESULT.child("no-such-result"), parse_target(str(path)))
    with pytest.raises(VectorFileError, match=r"no image of the job"):
        save(s3, RESULT, parse_target(f"{tmp_path}/new/", file_format), IMAGES[:1])
    with pytest.raises(OSError, match="No such file"):
        save(s3, RESULT, parse_target(str(tmp_path / "none" / path.name)))
    assert path.read_text() == "before"
    assert {one.name for one in tmp_path.iterdir()} == {path.name, "scratch"}
    assert [*scratch.iterdir()] == []


@pytest.mark.parametrize("file_format", ["geojson", "geojsonl", "fgb", "parquet"])  # those with room in a pipe
def test_a_pipe_is_written_to(s3: S3Manager, scratch: Path, file_format: str) -> None:
    reading, writing = os.pipe()
    save(s3, RESULT, parse_target(f"/proc/self/fd/{writing}", file_format))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert numbers(pipe.read(), file_format) == [0, 1, 2, 3]
    assert [*scratch.iterdir()] == []


def test_detect_and_result_write_what_the_ending_says(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {"features": 3}, "b": {}})
    report = tmp_path / "report.json"
    out = tmp_path / "out.fgb"
    done = fleet.run("detect", tiles, "-e", "scripted", "-o", out, "--report", report)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"4 features from 2 of 2 tiles in {out}"), done.stderr
    assert sorted(pyogrio.read_dataframe(out)["class"]) == ["a", "a", "a", "b"]
    assert json.loads(report.read_text())["result"] == str(out)

    uri = f"s3://{ELSEWHERE}/results/out.parquet"
    started = fleet.run("detect", tiles, "-e", "scripted", "--no-wait").stdout.strip()
    done = fleet.run("result", started, "-o", uri, "--report", report)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"4 features from 2 of 2 tiles in {uri}"), done.stderr
    assert json.loads(report.read_text())["result"] == uri
    body = fleet.s3.get_object(Bucket=ELSEWHERE, Key="results/out.parquet")["Body"].read()
    assert sorted(geopandas.read_parquet(io.BytesIO(body))["class"]) == ["a", "a", "a", "b"]
    assert fleet.objects() == [f"{ELSEWHERE}/results/out.parquet"]
    fleet.s3.delete_object(Bucket=ELSEWHERE, Key="results/out.parquet")


def test_a_result_that_s3_does_not_take_is_not_lost(fleet: Fleet, way: FaultyWay, tiles: Path) -> None:
    write_tiles(tiles, {"a": {}})
    way.shows(access_denied(), "PUT", key="results/")
    uri = f"s3://{ELSEWHERE}/results/out.gpkg"
    done = fleet.run("detect", tiles, "-e", "scripted", "-o", uri, AWS_ENDPOINT_URL_S3=way.url)
    (line,) = [line for line in done.stderr.splitlines() if "cannot be written" in line]
    assert (done.returncode, f"{uri} cannot be written: PUT" in line, "stays in S3" in line) == (2, True, True), line
    job = line.split("osml-tasks result ")[1].split()[0]
    assert fleet.run("result", job, "-o", "/dev/stdout").stdout.count("Feature") == 2


def test_a_handle_saves_in_every_format(here: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {"features": 2}})
    job_id = here.run("detect", tiles, "-e", "scripted", "--no-wait").stdout.strip()
    handle = JobHandle(connect(AsyncEndpointConfig(), new_app()), job_id)
    with pytest.raises(ExtensionConfigurationError, match="is a directory: name a file"):
        handle.save_result(tmp_path)
    for name in ("out", "out.geojsonl", "out.gpkg", "out.parquet"):
        handle.save_result(tmp_path / name)
    handle.save_result(os.fspath(tmp_path / "other"), file_format="fgb")
    assert len(pyogrio.read_dataframe(tmp_path / "out.gpkg")) == 2
    (tmp_path / "other").rename(tmp_path / "other.fgb")
    assert (len(pyogrio.read_dataframe(tmp_path / "other.fgb")), (tmp_path / "other.fgb").is_file()) == (2, True)
    assert pyogrio.list_layers(tmp_path / "other.fgb")[0][0] == "other"
    handle.discard()
