"""The command line: what it refuses, before anything is uploaded, and what it starts and stops."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from osml_tasks.celery import new_app
from osml_tasks.local.broker import Broker
from osml_tasks.local.server import free_port
from osml_tasks.worker_presence import listening
from tests.integration.fleet import PATIENCE, Fleet, clean_environment, wait_until, write_tiles

PROGRAM = [sys.executable, "-m", "osml_tasks"]


def descendants() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """A test after which a process lives on that did not before has failed."""
    before = descendants()
    yield
    wait_until(lambda: descendants() <= before)


def test_wrong_calls_are_answered_in_one_line_with_status_2(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}})
    empty, out = tmp_path / "empty", tmp_path / "out.geojson"
    empty.mkdir()
    with (tmp_path / "huge.tif").open("wb") as huge:
        huge.truncate(1_000_000_001)
    usual = ("--endpoint", "scripted", "-o", str(out))
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    calls: list[tuple[tuple[str, ...], dict[str, str | None], str]] = [
        ((str(tmp_path / "missing"), *usual), {}, "does not exist"),
        ((str(empty), *usual), {}, "has no tiles"),
        ((str(tmp_path / "*.png"), *usual), {}, "has no tiles"),
        (("s3://fleet-in/nothing-here/", *usual), {}, "has no tiles"),
        (("s3://fleet-in-typo/tiles/", *usual), {}, "cannot be listed"),
        ((str(tmp_path / "huge.tif"), *usual), {}, "1,000,000,001 bytes"),
        ((str(tiles), *usual), {"ARTIFACT_BUCKET": None}, "set ARTIFACT_BUCKET"),
        ((str(tiles), *usual), {"ARTIFACT_BUCKET": "no-such-bucket"}, "no bucket 'no-such-bucket'"),
        ((str(tiles), *usual), {"ASYNC_SM_MAX_RETRIES": "many"}, "ASYNC_SM_MAX_RETRIES"),
        (
            (str(tiles), *usual),
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_EC2_METADATA_DISABLED": "true"},
            "no AWS credentials",
        ),
        ((str(tiles), *usual), {"CELERY_BROKER_URL": nobody}, "does not answer"),
        ((str(tiles), "-e", "typo", "-o", str(out)), {}, "no endpoint 'typo'"),
        ((str(tiles), "-e", "scripted", "-o", str(tmp_path / "no" / "out")), {}, "there is no directory"),
        ((str(tiles), "-e", "scripted", "-o", str(tmp_path)), {}, "is a directory"),
        ((str(tiles), "-e", "scripted", "-o", "x" * 256), {}, "cannot be written"),
        ((str(tiles), "-e", "scripted", "-o", f"{tmp_path}/new/"), {}, "is a directory"),
        ((str(tiles), "-e", "scripted", "-o", "s3://fleet-in/results/"), {}, "is a directory"),
        ((str(tiles), "-e", "scripted", "-o", "s3://fleet-in/"), {}, "names no object"),
        ((str(tiles), "-e", "scripted", "-o", "s3://no-such-bucket/out.fgb"), {}, "no bucket 'no-such-bucket'"),
        ((str(tiles), "-e", "scripted", "-o", str(tmp_path / "out.shp")), {}, "no ending that is known"),
        ((str(tiles), *usual, "--format", "fgb"), {}, "ends as geojson, and the format is to be fgb"),
        ((str(tiles), *usual, "--format", "shp"), {}, "'shp' is not one of"),
        ((str(tiles), "-e", "scripted", "--no-wait", "--format", "fgb"), {}, "add -o"),
        ((str(tiles), "--local", "-o", "s3://fleet-in/out.fgb"), {}, "--local has an S3 server of its own"),
        ((str(tiles), "-o", str(out)), {}, "no endpoint named"),
        ((str(tiles), "-e", "scripted"), {}, "no output named"),
        ((), {}, "Missing argument"),
        ((str(tiles), "--tile-sizes", "9"), {}, "No such option"),
    ]
    for arguments, variables, expected in calls:
        done = fleet.run("detect", *arguments, **variables)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), (arguments, done.stderr)
        assert expected in done.stderr
        assert fleet.objects() == []
    assert not out.exists()


def test_check_says_what_is_there_and_what_is_not(fleet: Fleet) -> None:
    well = fleet.run("check", "--endpoint", "scripted")
    assert (well.returncode, "FAIL" in well.stdout) == (0, False), well.stdout
    assert "s3://fleet-out/output" in well.stdout
    assert "every queue is served: 1 on osml.submit, 1 on osml.poll, 1 on osml.assemble" in well.stdout
    ill = fleet.run("check", "-e", "elsewhere", ARTIFACT_BUCKET="no-such-bucket")
    assert ill.returncode == 2
    assert len(re.findall("^FAIL", ill.stdout, re.MULTILINE)) == 2
    lonely = fleet.run("check", "-e", "scripted", CELERY_BROKER_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert (lonely.returncode, "FAIL  broker" in lonely.stdout) == (2, True)
    assert "ok    endpoint scripted" in lonely.stdout


def test_check_finds_a_broker_that_would_drop_records(fleet: Fleet, tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker:
        redis.Redis.from_url(broker.url).config_set("maxmemory-policy", "volatile-lru")
        checked = fleet.run("check", CELERY_BROKER_URL=broker.url)
    assert checked.returncode == 2
    assert "FAIL  memory: the state's server has maxmemory-policy volatile-lru: set it to noeviction" in checked.stdout


def test_an_unknown_job_is_answered_in_one_line(fleet: Fleet) -> None:
    for job in ("20200101-000000-00000000", "../../etc"):
        done = fleet.run("status", job)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_a_worker_without_a_bucket_does_not_start(fleet: Fleet) -> None:
    for command in (["-m", "osml_tasks", "worker"], ["-m", "celery", "-A", "osml_tasks", "worker"]):
        _, env = fleet.command("worker", ARTIFACT_BUCKET=None)
        done = subprocess.run(
            [sys.executable, *command], env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode != 0
        assert "set ARTIFACT_BUCKET" in done.stderr


@pytest.mark.usefixtures("nothing_stays")
def test_local_runs_until_it_is_told_to_stop_and_its_exports_serve_another_shell(tmp_path: Path) -> None:
    tiles = write_tiles(tmp_path / "tiles", {"a": {"features": 3}, "b": {}})
    model = ("--model", "tests.integration.models:scripted", "--endpoint", "mine", "--tile-root", str(tmp_path))
    local = subprocess.Popen(
        [*PROGRAM, "local", *model], env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert local.stdout is not None
    exports = ""
    for line in local.stdout:
        if line.startswith("# ready"):
            break
        exports += line
    call = f"{exports}{sys.executable} -m osml_tasks detect {tiles} -e mine --no-stage -o {tmp_path / 'out.geojson'}"
    done = subprocess.run(
        ["sh", "-c", call], env=clean_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    local.send_signal(signal.SIGTERM)
    _, err = local.communicate(timeout=PATIENCE)
    assert (done.returncode, done.stdout[:10]) == (0, "4 features"), done.stderr
    assert local.returncode == 0, err


@pytest.mark.usefixtures("nothing_stays")
def test_plain_celery_serves_all_four_queues(tmp_path: Path) -> None:
    tiles = write_tiles(tmp_path / "tiles", {"a": {}, "b": {}})
    options = ["local", "--no-workers", "--model", "tests.integration.models:scripted", "-e", "mine"]
    local = subprocess.Popen([*PROGRAM, *options], env=clean_environment(), stdout=subprocess.PIPE, text=True)
    assert local.stdout is not None
    exported = {}
    for line in local.stdout:
        if line.startswith("# ready"):
            break
        name, value = line.removeprefix("export ").strip().split("=", 1)
        exported[name] = value.strip("'")
    env = clean_environment() | exported
    worker = subprocess.Popen([sys.executable, "-m", "celery", "-A", "osml_tasks", "worker", "-l", "WARNING"], env=env)
    app = new_app(exported["CELERY_BROKER_URL"])
    wait_until(lambda: bool(listening(timeout=2.0, app=app, enough=bool)))
    done = subprocess.run(
        [*PROGRAM, "detect", tiles, "-e", "mine", "-o", tmp_path / "out.geojson"],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    worker.terminate()
    worker.wait(timeout=PATIENCE)
    local.terminate()
    local.wait(timeout=PATIENCE)
    assert (done.returncode, done.stdout[:10]) == (0, "2 features"), done.stderr


@pytest.mark.usefixtures("nothing_stays")
def test_the_demonstration_finds_the_ships_and_leaves_only_its_result(tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    done = subprocess.run(
        [*PROGRAM, "demo", "-o", "harbour.geojson"],
        env=clean_environment() | {"TMPDIR": str(scratch)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    found = re.search(r"(\d+) of (\d+) known ships found", done.stdout)
    assert found is not None, done.stderr
    assert int(found[1]) >= 0.95 * int(found[2])
    assert done.returncode == 0
    precision = re.search(r"precision (\d\.\d\d), recall \d\.\d\d$", done.stdout, re.MULTILINE)
    assert precision is not None
    assert float(precision[1]) >= 0.9
    written = ["harbour.geojson", "harbour.html", "harbour.png", "tmp"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == written


@pytest.mark.usefixtures("nothing_stays")
def test_detect_local_needs_nothing_but_tiles(tmp_path: Path) -> None:
    from osml_tasks.local.harbour import make_harbour

    harbour = make_harbour(tmp_path, ships=10, width=1024, height=768, seed=3)
    done = subprocess.run(
        [*PROGRAM, "detect", tmp_path / "tiles", "--local", "--no-stage", "-o", tmp_path / "out.geojson"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"from {len(harbour.tiles)} of {len(harbour.tiles)} tiles" in done.stdout
