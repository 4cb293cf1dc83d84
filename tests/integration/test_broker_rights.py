"""A fleet whose broker knows one user, with the rights that the guide gives it: they are enough, and no more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import redis
from redis.exceptions import NoPermissionError

from osml_tasks.celery import new_app
from osml_tasks.local.broker import Broker
from osml_tasks.local.server import free_port
from osml_tasks.redis_keys import PREFIX
from tests.integration.crew import ALL, Crew
from tests.integration.fleet import (
    PATIENCE,
    REPOSITORY,
    Fleet,
    names,
    start_python,
    strange_app,
    wait_until,
    write_tiles,
)
from tests.integration.test_flower import FLOWER_READY

GUIDE = REPOSITORY / "docs/security.md"
PASSWORD = "of-the-fleet"


@dataclass(frozen=True)
class Guarded:
    """A fleet of the user's.

    :ivar root: a Redis client that may do everything.
    :ivar user: a Redis client with the user's rights.
    """

    fleet: Fleet
    root: Any
    user: Any
    flower_url: str

    def refused(self) -> list[str]:
        """What anybody was not allowed."""
        log = self.root.execute_command("ACL", "LOG")
        return [str(entry) for entry in log]

    def flower(self, path: str) -> Any:
        """What Flower answers."""
        with urlopen(self.flower_url + path, timeout=PATIENCE) as answer:
            return json.load(answer)


def rules() -> dict[str, list[str]]:
    """The users of the guide."""
    lines = re.findall(r"^user (\S+) (.*)$", GUIDE.read_text(), re.MULTILINE)
    return {name: text.replace("CHANGE-ME", PASSWORD).split() for name, text in lines}


@pytest.fixture(scope="module")
def guarded(_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    with ExitStack() as running:
        broker = running.enter_context(Broker(directory / "broker"))
        with redis.Redis.from_url(broker.url) as server:
            server.execute_command("ACL", "SETUSER", "root", "on", ">toor", "~*", "&*", "+@all")
        root = running.enter_context(
            redis.Redis.from_url(broker.url.replace("://", "://root:toor@"), decode_responses=True)
        )
        for name, of_user in rules().items():
            root.execute_command("ACL", "SETUSER", name, *of_user)
        url = broker.url.replace("://", f"://osml:{PASSWORD}@")
        env = {**_fleet.env, "CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
        fleet = Fleet(env, _fleet.endpoints_url, _fleet.tiles, str)
        crew = Crew(fleet, running, directory, new_app(url, url))
        crew.start("all", ALL, 2, "-B", "-s", str(directory / "schedule"))
        port = free_port()
        command = ["-m", "celery", "-A", "osml_tasks", "flower", "--address=127.0.0.1", f"--port={port}"]
        unlocked = {"FLOWER_UNAUTHENTICATED_API": "true"}
        start_python(running, "flower", command, directory, env | unlocked, FLOWER_READY)
        user = running.enter_context(redis.Redis.from_url(url))
        yield Guarded(fleet, root, user, f"http://127.0.0.1:{port}")
    _fleet.wait_empty()


@pytest.fixture(autouse=True)
def nothing_is_refused(guarded: Guarded) -> Iterator[None]:
    """A test of what the fleet does fails where the broker refused any of it."""
    guarded.root.execute_command("ACL", "LOG", "RESET")
    yield
    assert guarded.refused() == []


def test_a_job_that_waits_for_capacity_fails_retries_and_cleans_up(guarded: Guarded, tmp_path: Path) -> None:
    scripts = {f"t{number:02d}": {} for number in range(40)} | {"t03": {"fail_first": 1}, "t07": {"fail_first": 5}}
    tiles = write_tiles(tmp_path / "tiles", scripts)
    run = guarded.fleet.run
    options = {"ASYNC_SM_MAX_CONCURRENT_JOBS": "8", "ASYNC_SM_CLEANUP_POLICY": "delayed"}
    outcome = guarded.fleet.detect(tiles, "-e", "scripted", "--keep", folder=tmp_path, **options)
    job = outcome.report["job_id"]
    assert (outcome.status, len(outcome.features)) == (3, 39), outcome.err
    again = run("retry", job, "-o", tmp_path / "again.geojson")
    assert again.returncode == 0, again.stderr
    for call in (["status", job], ["jobs"], ["queues"], ["check", "-e", "scripted"], ["cleanup", "--force"]):
        done = run(*call)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_job_is_cancelled_resumed_and_watched(guarded: Guarded, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    tiles = write_tiles(tmp_path / "tiles", {f"t{number:02d}": {"after": str(gate)} for number in range(40)})
    run = guarded.fleet.run
    cancelled = run("detect", tiles, "-e", "slow", "--no-wait").stdout.strip()
    stopped = run("cancel", cancelled)
    assert (stopped.returncode, f"job {cancelled} cancelled" in stopped.stdout) == (0, True), stopped.stderr
    resumed = run("detect", tiles, "-e", "slow", "--no-wait").stdout.strip()
    forced = run("resume", resumed, "--force")
    gate.touch()
    assert forced.returncode == 0, forced.stderr
    assert run("watch", resumed).returncode == 0
    result = run("result", resumed, "-o", tmp_path / "out.geojson")
    assert result.returncode == 0, result.stderr
    assert len(names(json.loads((tmp_path / "out.geojson").read_text())["features"])) == 40
    wait_until(lambda: guarded.fleet.stats("slow")["in_flight"] == 0)
    wait_until(lambda: run("cleanup", "--force").stdout.startswith("0 deleted"))


def test_a_task_call_waits_for_its_result(guarded: Guarded, tmp_path: Path) -> None:
    fleet = guarded.fleet
    fleet.s3.put_object(Bucket="fleet-in", Key="imagery/a", Body=b'{"name": "a"}')
    url = fleet.env["CELERY_BROKER_URL"]
    app = strange_app(url)
    arguments = {"sources": ["s3://fleet-in/imagery/"], "endpoint": "scripted"}
    report = app.send_task("osml_tasks.detect", kwargs=arguments, queue="osml.submit").get(timeout=PATIENCE)
    assert fleet.run("result", report["job_id"], "-o", tmp_path / "out.geojson").returncode == 0
    fleet.s3.delete_object(Bucket="fleet-in", Key="imagery/a")


def test_flower_sees_workers_tasks_and_queues(guarded: Guarded) -> None:
    wait_until(lambda: list(guarded.flower("/api/workers?refresh=1")) == ["all@crew"])
    wait_until(lambda: "osml_tasks.cleanup" in str(guarded.flower("/api/tasks")))
    assert len(guarded.flower("/api/queues/length")["active_queues"]) == 4


def test_whatever_the_fleet_keeps_has_its_prefix(guarded: Guarded) -> None:
    keys = set(guarded.root.scan_iter())
    assert len(keys) > 10
    assert [key for key in keys if not key.startswith(PREFIX)] == []


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
        "CONFIG GET requirepass",
        "CONFIG SET maxmemory 1",
        "ACL LIST",
        "ACL SETUSER osml allcommands",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "SCRIPT FLUSH",
        "FUNCTION FLUSH",
        "SHUTDOWN NOSAVE",
        "MONITOR",
        "REPLICAOF 127.0.0.1 1",
        "SAVE",
        f"MIGRATE 127.0.0.1 1 {PREFIX}jobs 0 1",
        "GET theirs",
        "SET theirs 1",
        "DEL theirs",
        f"RENAME {PREFIX}x theirs",
        "SUBSCRIBE theirs",
        "PUBLISH theirs 1",
    ],
)
def test_nothing_else_is_allowed(guarded: Guarded, command: str) -> None:
    with pytest.raises(NoPermissionError):
        guarded.user.execute_command(*command.split())
    guarded.root.execute_command("ACL", "LOG", "RESET")


def test_a_script_has_no_more_rights(guarded: Guarded) -> None:
    for script in ("redis.call('GET', 'theirs')", "redis.call('FLUSHALL')", "redis.call('KEYS', '*')"):
        with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)ACL|permission"):
            guarded.user.eval(f"return {script}", 0)
    guarded.root.execute_command("ACL", "LOG", "RESET")


def test_nobody_gets_in_without_the_users_password(guarded: Guarded) -> None:
    url = guarded.fleet.env["CELERY_BROKER_URL"]
    for other in (url.replace(f"osml:{PASSWORD}@", ""), url.replace(PASSWORD, "guessed")):
        done = guarded.fleet.run("jobs", CELERY_BROKER_URL=other, CELERY_RESULT_BACKEND=other)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "guessed" not in done.stderr
    guarded.root.execute_command("ACL", "LOG", "RESET")
