"""What goes wrong with tiles and endpoints, and what a user sees of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tests.integration.fleet import PATIENCE, Fleet, names, start_torn_job, write_tiles


def test_a_failed_tile_is_tried_again(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"good": {}, "fails-twice": {"fail_first": 2}})
    outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path)
    assert (outcome.status, names(outcome.features)) == (0, ["fails-twice", "good"])


def test_a_tile_that_keeps_failing_is_in_the_report(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"good": {}, "hopeless": {"fail_first": 99}, "worse": {"fail_first": 99}})
    outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path, ASYNC_SM_MAX_RETRIES="2")
    assert (outcome.status, names(outcome.features)) == (3, ["good"])
    assert (outcome.report["succeeded"], outcome.report["failed"]) == (1, 2)
    failures = {failure["tile"]: failure for failure in outcome.report["failures"]}
    hopeless = failures[str(tiles / "hopeless")]
    assert (hopeless["reason"], hopeless["attempts"]) == ("model", 3)
    assert "call 3 of hopeless is to fail" in hopeless["error"]


def test_what_is_not_geojson_is_unparsable_and_not_tried_again(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    answers = {"text": "no JSON", "nan": '{"type": "FeatureCollection", "features": NaN}', "list": "[]", "empty": ""}
    write_tiles(tiles, {"good": {}} | {name: {"raw": answer} for name, answer in answers.items()})
    outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path)
    assert (outcome.status, names(outcome.features)) == (3, ["good"])
    assert Counter(failure["reason"] for failure in outcome.report["failures"]) == {"unparsable": len(answers)}
    assert {failure["attempts"] for failure in outcome.report["failures"]} == {1}


def test_a_tile_that_no_worker_may_read_is_in_the_report(fleet: Fleet, tmp_path: Path) -> None:
    tiles = write_tiles(tmp_path / "outside", {"a": {}})
    outcome = fleet.detect(tiles, "-e", "scripted", "--no-stage", folder=tmp_path)
    assert outcome.status == 3
    assert outcome.report["failures"][0]["reason"] == "input"
    assert "ASYNC_SM_TILE_ROOTS" in outcome.report["failures"][0]["error"]


def test_a_link_does_not_lead_out_of_the_roots(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"name": "secret"}')
    write_tiles(tiles, {"good": {}})
    (tiles / "link").symlink_to(secret)
    outcome = fleet.detect(tiles, "-e", "scripted", "--no-stage", folder=tmp_path)
    assert (outcome.status, names(outcome.features)) == (3, ["good"])


def test_silence_ends_at_the_deadline(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}, "b": {}})
    outcome = fleet.detect(tiles, "-e", "silent", folder=tmp_path, ASYNC_SM_MAX_WAIT_TIME="2")
    assert outcome.status == 3
    assert [failure["reason"] for failure in outcome.report["failures"]] == ["timeout", "timeout"]
    assert "ASYNC_SM_MAX_WAIT_TIME" in outcome.report["failures"][0]["error"]


def test_an_endpoint_that_tells_no_failures_still_ends(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"good": {}, "bad": {"fail_first": 99}})
    outcome = fleet.detect(tiles, "-e", "tells-no-failure", folder=tmp_path, ASYNC_SM_MAX_WAIT_TIME="4")
    assert (outcome.status, names(outcome.features)) == (3, ["good"])


def test_throttling_is_waited_out(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {f"t{number}": {} for number in range(6)})
    outcome = fleet.detect(tiles, "-e", "throttled", folder=tmp_path, ASYNC_SM_MAX_RETRIES="30")
    assert (outcome.status, len(outcome.features)) == (0, 6)
    assert fleet.stats("throttled")["throttled"] > 0


def test_a_region_without_inline_payloads_costs_one_warning(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {f"t{number:02d}": {} for number in range(60)})
    outcome = fleet.detect(tiles, "-e", "refuses-inline", "--no-stage", folder=tmp_path)
    assert (outcome.status, len(outcome.features)) == (0, 60)
    warnings = [line for line in fleet.worker_log().splitlines() if "no payload inline" in line]
    assert len([line for line in warnings if outcome.report["job_id"] in line]) == 1


def test_an_endpoint_that_ignores_path_extensions_works_and_leaves_nothing(
    fleet: Fleet, tiles: Path, tmp_path: Path
) -> None:
    write_tiles(tiles, {f"t{number:02d}": {"fail_first": number % 2} for number in range(12)})
    outcome = fleet.detect(tiles, "-e", "old-region", folder=tmp_path)
    assert (outcome.status, len(outcome.features)) == (0, 12)


def test_an_endpoint_that_writes_elsewhere_is_found_out_before_the_job(
    fleet: Fleet, tiles: Path, tmp_path: Path
) -> None:
    write_tiles(tiles, {"a": {}})
    before = fleet.invocations("elsewhere")
    outcome = fleet.detect(tiles, "-e", "elsewhere", folder=tmp_path)
    assert (outcome.status, "set ASYNC_SM_OUTPUT_BUCKET=fleet-elsewhere" in outcome.err) == (2, True)
    assert fleet.invocations("elsewhere") == before


def test_an_endpoint_that_nobody_may_describe_is_found_out_by_its_answer(
    fleet: Fleet, tiles: Path, tmp_path: Path
) -> None:
    write_tiles(tiles, {"a": {}})
    outcome = fleet.detect(tiles, "-e", "no-such-endpoint", folder=tmp_path, AWS_ENDPOINT_URL_SAGEMAKER=None)
    assert (outcome.status, "not found" in outcome.err) == (2, True)
    assert outcome.report["state"] == "failed"


def test_a_tile_that_vanishes_before_its_turn_is_in_the_report(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_tiles(tiles, {f"t{number:02d}": {"after": str(gate)} for number in range(60)})
    client = fleet.start(
        *("detect", tiles, "-e", "scripted", "--no-stage", "-o", tmp_path / "out", "--report", tmp_path / "report"),
        ASYNC_SM_MAX_CONCURRENT_JOBS="8",
    )
    assert client.stderr is not None
    next(line for line in client.stderr if line.startswith("job "))
    (tiles / "t59").unlink()
    gate.touch()
    client.communicate(timeout=PATIENCE)
    report = json.loads((tmp_path / "report").read_text())
    assert client.returncode == 3
    assert [(failure["reason"], failure["tile"]) for failure in report["failures"]] == [("input", str(tiles / "t59"))]


def test_a_job_that_meets_a_defect_ends_instead_of_hanging(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}})
    job = start_torn_job(fleet, tiles)
    done = fleet.run("result", job, "-o", tmp_path / "out.geojson")
    assert (done.returncode, "failed" in done.stderr) == (1, True)
