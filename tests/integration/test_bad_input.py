"""Tiles of any name and answers of any kind, through a real fleet: each is in the result or in the report."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.endpoints import ELSEWHERE
from tests.integration.fleet import Fleet, Outcome, names

NAMES = [
    *("ü ñ 船.png", "e\u0301.png", "\u00e9.png", "\U0001f6a2.tif", "\u202egnp.exe", "a\u2028b", "a\x85b", "\x1b[31m"),
    *("two\nlines", "a\tb", " lead", "trail ", "-dash", "--", "-o", "%41%00.png", "#?&+=;@.png", "it's", 'say "a"'),
    *(
        "back\\slash",
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
        "no_ending.",
        "t.ntf",
    ),
]
FOLDERS = [".", "same name in another", "sub\nline/-deep"]


def write(folder: Path, name: str, script: dict[str, Any] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"name": name} | (script or {})))


def strictly(path: Path) -> Any:
    """Read a file as JSON without Python's own extensions."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_bytes().decode("utf-8", "strict"), parse_constant=refuse)


def accounted(outcome: Outcome, folder: Path) -> list[str]:
    """The tiles that a job answers for, in its result or in its report, with all checks of the two."""
    result, report = strictly(folder / "out.geojson"), strictly(folder / "report.json")
    succeeded = [feature["properties"]["sourceMetadata"][-1]["location"] for feature in result["features"]]
    failed = [failure["tile"] for failure in report["failures"]]
    assert (len(succeeded), len(failed)) == (report["succeeded"], report["failed"])
    for failure in report["failures"]:
        assert failure["error"].isprintable()
        assert 0 < len(failure["error"]) <= 1000
    assert outcome.err.replace("\n", "").isprintable()
    return succeeded + failed


@pytest.mark.parametrize("staging", ["--stage", "--no-stage"])
def test_files_of_any_name_come_back_under_their_name(fleet: Fleet, tiles: Path, tmp_path: Path, staging: str) -> None:
    for folder in FOLDERS:
        for name in NAMES:
            write(tiles / folder, name)
    (tiles / "link.png").symlink_to(tiles / NAMES[0])
    outcome = fleet.detect(tiles, "-e", "scripted", staging, folder=tmp_path)
    expected = [str(tiles / folder / name) for folder in FOLDERS for name in NAMES] + [str(tiles / "link.png")]
    assert (outcome.status, sorted(accounted(outcome, tmp_path))) == (0, sorted(expected)), outcome.err
    assert sorted(names(outcome.features)) == sorted([*NAMES * len(FOLDERS), NAMES[0]])


def test_files_named_like_options_are_tiles_behind_two_dashes(
    fleet: Fleet, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("-x.png", "--", "-o"):
        write(tiles, name)
    monkeypatch.chdir(tiles)
    out = ["-o", str(tmp_path / "out.geojson"), "--report", str(tmp_path / "report.json")]
    done = fleet.run("detect", "-e", "scripted", *out, "--", "-x.png", "--", "-o")
    assert done.returncode == 0, done.stderr
    assert sorted(names(strictly(tmp_path / "out.geojson")["features"])) == ["--", "-o", "-x.png"]


def test_objects_of_any_key_come_back_under_their_key_or_are_in_the_report(fleet: Fleet, tmp_path: Path) -> None:
    odd = ["a//b.png", "../up.png", "./here.png", "deep/../up.png", "k" * 255, "/".join(["d" * 100] * 9)]
    # The S3 server of the tests makes a slash of a backslash, and has no room for longer names.
    keys = [f"odd-keys/{name}" for name in [*NAMES, *odd] if "\\" not in name]
    for key in keys:
        with suppress(ClientError):
            fleet.s3.put_object(Bucket=ELSEWHERE, Key=key, Body=json.dumps({"name": key}))
    listed = [found["Key"] for found in fleet.s3.list_objects_v2(Bucket=ELSEWHERE, Prefix="odd-keys/")["Contents"]]
    assert len(listed) > len(NAMES)
    outcome = fleet.detect(f"s3://{ELSEWHERE}/odd-keys/", "-e", "scripted", folder=tmp_path, ASYNC_SM_MAX_RETRIES="0")
    assert sorted(accounted(outcome, tmp_path)) == sorted(f"s3://{ELSEWHERE}/{key}" for key in listed)
    reasons = {failure["tile"]: failure["reason"] for failure in outcome.report["failures"]}
    for name in ("two\nlines", "a\tb", "\x1b[31m", "trail "):
        assert reasons[f"s3://{ELSEWHERE}/odd-keys/{name}"] == "input"
    for key in listed:
        fleet.s3.delete_object(Bucket=ELSEWHERE, Key=key)


def feature(**members: Any) -> str:
    return json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature"}, {"type": "Feature"} | members]})


RING = [[0, 0], [4, 0], [4, 4], [0, 0]]
BAD_ANSWERS = {
    "empty": ("", "not JSON"),
    "html": ("<html><body>502 Bad Gateway</body></html>", "<html>"),
    "cut short": (feature()[:-5], "not JSON"),
    "infinity": (feature(properties={"a": 0}).replace(": 0", ": 1e400"), "not JSON"),
    "nan": (feature(properties={"a": 0}).replace(": 0", ": NaN"), "not JSON"),
    "surrogate": (feature(properties={"a": "x"}).replace('"x"', r'"\ud800"'), "not JSON"),
    "bare feature": ('{"type": "Feature", "geometry": null, "properties": null}', "not a FeatureCollection"),
    "null features": ('{"type": "FeatureCollection", "features": null}', "not a list"),
    "deep": (feature(properties={"a": "x"}).replace('"x"', "[" * 400 + "]" * 400), "features[1] is nested"),
    "deeper": ("[" * 100_000, "not JSON"),
    "text in a point": (feature(geometry={"type": "Point", "coordinates": ["a", 1]}), "features[1] has a Point"),
    "flat polygon": (feature(geometry={"type": "Polygon", "coordinates": RING}), "features[1] has a Polygon"),
    "open ring": (feature(geometry={"type": "Polygon", "coordinates": [[*RING[:3], [0, 1]]]}), "not closed"),
    "no geometry": (feature(geometry={"type": "Circle", "coordinates": []}), "features[1] has the geometry"),
    "list of properties": (feature(properties=[1]), "features[1] has the properties"),
    "odd id": (feature(id={"a": 1}), "features[1] has the id"),
    "control characters": ("\x1b[31m\x00\n\u2028", "not JSON"),
}
GOOD_ANSWERS = {
    "polygon": feature(geometry={"type": "Polygon", "coordinates": [RING]}, id=7, bbox=[0, 0, 4, 4]),
    "empty coordinates": feature(geometry={"type": "MultiPolygon", "coordinates": []}),
    "collection": feature(geometry={"type": "GeometryCollection", "geometries": []}),
    "texts": feature(properties={"a\nb\u2028": "\x00\x1b\u202e\U0001f6a2"}),
    "odd pixels": feature(properties={"imageGeometry": "?", "imageBBox": [None]}),
    "odd provenance": feature(properties={"sourceMetadata": {"a": 1}, "inferenceMetadata": 7}),
    "marked": "\ufeff" + feature(),
    "many": json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "id": 1}] * 20_000}),
}


def test_answers_of_any_kind_are_features_or_in_the_report(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    answers = {name: answer for name, (answer, _) in BAD_ANSWERS.items()} | GOOD_ANSWERS
    for name, answer in answers.items():
        write(tiles, name, {"raw": answer})
    outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path)
    assert outcome.status == 3
    result = strictly(tmp_path / "out.geojson")["features"]
    assert len(result) == 20_000 + 2 * (len(GOOD_ANSWERS) - 1) == outcome.report["features"]
    failures = {Path(failure["tile"]).name: failure for failure in outcome.report["failures"]}
    assert failures.keys() == BAD_ANSWERS.keys()
    for name, (_, said) in BAD_ANSWERS.items():
        assert (failures[name]["reason"], said in failures[name]["error"]) == ("unparsable", True), failures[name]
        assert failures[name]["error"].isprintable()


def test_a_failure_of_any_text_is_one_line_of_the_report(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    texts = ["two\nlines", "\x1b[2J\x00", "\u2028\u202e", "x" * 5000, "船" * 3000]
    for number, text in enumerate(texts):
        write(tiles, f"t{number}", {"name": text, "fail_first": 99})
    outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path, ASYNC_SM_MAX_RETRIES="0")
    assert len(accounted(outcome, tmp_path)) == len(texts)
    assert {failure["reason"] for failure in outcome.report["failures"]} == {"model"}
