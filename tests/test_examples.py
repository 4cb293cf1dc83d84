"""Each example runs as it stands, says what it should, and leaves nothing in S3."""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from threading import Thread

import pytest

from osml_tasks.local.harbour import make_harbour
from tests.integration.fleet import PATIENCE, REPOSITORY, Fleet, clean_environment, wait_until, write_tiles

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture
def harbour(tmp_path: Path) -> Path:
    """A directory of tiles with ships for the sample model."""
    make_harbour(tmp_path, width=768, height=512, ships=6)
    return tmp_path / "tiles"


def call(fleet: Fleet, name: str, *arguments: str | Path, **variables: str | None) -> tuple[list[str], dict[str, str]]:
    """A call of an example and its environment; a variable that is None is left out."""
    env = clean_environment() | {"PYTHONPATH": str(REPOSITORY)} | dict(fleet.env) | {"ENDPOINT": "bright-objects"}
    env |= {variable: value for variable, value in variables.items() if value is not None}
    for variable in (variable for variable, value in variables.items() if value is None):
        env.pop(variable, None)
    return [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)], env


def run(fleet: Fleet, name: str, *arguments: str | Path, **variables: str | None) -> str:
    """Run an example to its end; says what it printed."""
    command, env = call(fleet, name, *arguments, **variables)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_tile_without_a_broker(fleet: Fleet, harbour: Path) -> None:
    tile = harbour / "harbour_r00_c00.png"
    said = run(fleet, "basic_async_usage", tile, CELERY_BROKER_URL=None)
    assert re.match(r"\d+ features in harbour_r00_c00.png\n", said)
    assert said.endswith("went inline\n")
    assert run(fleet, "basic_async_usage", tile, ASYNC_SM_INLINE_PAYLOAD_MAX_BYTES="0").endswith("through S3\n")


@pytest.mark.parametrize("broker", [True, False], ids=["the fleet", "workers of its own"])
def test_a_pool_finds_what_one_by_one_finds(fleet: Fleet, harbour: Path, broker: bool) -> None:
    before = fleet.stats("bright-objects")["invocations"]
    said = run(fleet, "worker_pool_optimization", harbour, **({} if broker else {"CELERY_BROKER_URL": None}))
    counts = re.findall(r"^(worker pool|one by one): 6 tiles, 0 failed, (\d+) features", said, re.MULTILINE)
    assert [way for way, _ in counts] == ["worker pool", "one by one"]
    assert int(counts[0][1]) > 0
    assert said.endswith("same number of features\n")
    assert fleet.stats("bright-objects")["invocations"] == before + 12


def test_a_pool_keeps_the_slots_busy_and_one_by_one_keeps_one(fleet: Fleet, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    tiles = write_tiles(tmp_path / "slow", {f"t{number:02d}": {"after": str(gate)} for number in range(16)})
    command, env = call(fleet, "worker_pool_optimization", tiles, ENDPOINT="slow", PYTHONUNBUFFERED="1")
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as example:
        assert example.stdout is not None
        lines = queue.SimpleQueue[str]()
        Thread(target=lambda: deque(map(lines.put, example.stdout or ()), maxlen=0), daemon=True).start()
        # The pool comes first.
        wait_until(lambda: fleet.stats("slow")["running"] >= 4)
        gate.touch()
        peaks = [_peak_until_a_line(fleet, lines, way) for way in ("worker pool", "one by one")]
    assert example.returncode == 0
    assert peaks[1] == 1


def _peak_until_a_line(fleet: Fleet, lines: queue.SimpleQueue[str], way: str) -> int:
    """How many invocations the model had at once at most, until the example tells of this way."""
    peak = 0
    while lines.empty():
        peak = max(peak, fleet.stats("slow")["running"])
        time.sleep(0.05)
    assert lines.get().startswith(f"{way}: 16 tiles")
    return peak


def test_each_policy_leaves_what_it_says(fleet: Fleet, harbour: Path) -> None:
    said = run(fleet, "resource_management", harbour / "harbour_r00_c00.png", CELERY_BROKER_URL=None).splitlines()
    # Payload and output.
    assert said[0].startswith("immediate: 0 waiting")
    for place, policy in ((2, "delayed"), (4, "disabled")):
        assert said[place].startswith(f"{policy}: 2 waiting {{'s3_object': 2}}, ")
        assert said[place + 1] == "  due now: 0, by force: 2"
    assert said[6].startswith("a file of one's own: 1 waiting {'temporary_file': 1}")
    assert said[7] == "  the file is gone"


def test_errors_are_told_apart_and_what_failed_is_tried_again(fleet: Fleet, harbour: Path) -> None:
    said = run(fleet, "error_handling_and_recovery", harbour)
    first = re.findall(r"^first round: \S+: (\w+)", said, re.MULTILINE)
    assert first == ["done", "again", "done", "done"]
    assert re.findall(r"^second round: (\S+): (\w+)", said, re.MULTILINE) == [("harbour_r00_c01.png", "done")]
    assert "wrong endpoint: give up, no payload would fare better: endpoint 'no-such-endpoint'" in said
    assert "wrong payload: give up, no payload would fare better: the payload is str" in said
    job = re.search(r"^job (\S+): cancelled True, now cancelled$", said, re.MULTILINE)
    assert job is not None
    # What was in flight still comes, and goes with a later cleanup.
    wait_until(lambda: fleet.stats("bright-objects")["in_flight"] == 0)
    wait_until(lambda: fleet.run("cleanup", "--job", job[1]).stdout.startswith("0 deleted"))


def test_ships_of_an_image_are_found_once_each_and_lie_where_they_were_drawn(fleet: Fleet, tmp_path: Path) -> None:
    said = run(fleet, "whole_image", tmp_path / "ships.tif")
    assert said.startswith("49 ships are drawn in ships.tif\n49 found in 12 tiles, 0 failed\n")
    # The first of them is drawn 80 m long and 20 m wide.
    first = re.search(r"^0 +POLYGON \(\((\S+) (\S+), .* (\S+) +\[60\.0, 60\.0, 100\.0, 70\.0\]$", said, re.MULTILINE)
    assert first is not None
    longitude, latitude, square_metres = map(float, first.groups())
    assert (longitude, latitude) == pytest.approx((-122.3965, 37.8188), abs=0.0002)
    assert square_metres == pytest.approx(1600, rel=0.01)


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) < 70
    assert f"python examples/{name}.py" in text
