"""What is made, when it is deleted, and what is said of what cannot be: on a real S3, with both ledgers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.celery import new_app, state_client
from osml_tasks.cleanup import CleanupPolicy, ResourceManager
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections, connect
from osml_tasks.detection import create_job
from osml_tasks.detectors import AsyncSMDetector
from osml_tasks.errors import NotAllowedError
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import JobState, may_be_swept, new_job_id
from osml_tasks.ledger import LEDGER_SECONDS, Ledger, MemoryLedger, Outcome, RedisLedger, ResourceType
from osml_tasks.redis_keys import PREFIX
from osml_tasks.s3 import S3Manager, S3Uri, Undeleted
from osml_tasks.sources import find_tiles
from osml_tasks.sweep import clean_up_jobs, delete_leftovers, sweep
from tests.integration.endpoints import OUTPUTS
from tests.integration.fleet import INPUTS, Fleet, wait_until, write_tiles

OBJECT = ResourceType.S3_OBJECT
LEDGERS = [MemoryLedger, lambda: RedisLedger(fakeredis.FakeRedis())]


@pytest.fixture(params=LEDGERS, ids=["memory", "redis"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    made: Ledger = request.param()
    return made


def key(name: str) -> S3Uri:
    return S3Uri(INPUTS, f"async-inference/input/{name}")


def written(s3: S3Manager, *names: str) -> list[S3Uri]:
    for name in names:
        s3.put(key(name), b"x")
    return [key(name) for name in names]


class Stubborn(S3Manager):
    """S3 that does not let go of some objects, until it is told to."""

    refused: frozenset[S3Uri] = frozenset()

    def delete(self, uris: Any) -> Any:
        wanted = list(uris)
        super().delete([uri for uri in wanted if uri not in self.refused])
        return [Undeleted(uri, "AccessDenied: no") for uri in wanted if uri in self.refused]


class Willing:
    """S3 that deletes whatever it is asked to."""

    def delete(self, uris: Any) -> list[Undeleted]:
        list(uris)
        return []


# The ledgers, one like the other.


def test_entries_are_due_in_the_order_of_their_times(ledger: Ledger) -> None:
    ledger.schedule(OBJECT, {"late": 30.0, "first": 10.0, "second": 20.0, "moved": 5.0, "gone": 6.0})
    ledger.schedule(OBJECT, {"moved": 40.0})
    ledger.schedule(ResourceType.JOB, {"another": 1.0})
    ledger.strike(OBJECT, ["gone", "never-was"])
    ledger.schedule(OBJECT, {})
    assert ledger.due(OBJECT, 9.9) == []
    assert ledger.due(OBJECT, 20.0) == ["first", "second"]
    assert ledger.due(OBJECT, 99.0, most=3) == ["first", "second", "late"]


def test_what_is_held_is_never_due_but_known(ledger: Ledger) -> None:
    ledger.schedule(OBJECT, {"a": 1.0})
    ledger.hold(OBJECT, ["a", "b"])
    ledger.hold(OBJECT, [])
    assert ledger.due(OBJECT, 1e12) == []
    assert ledger.entries(OBJECT) == {"a": float("inf"), "b": float("inf")}
    ledger.strike(OBJECT, ["a", "b"])
    assert ledger.entries(OBJECT) == {}


def test_failures_are_kept_with_their_attempts_until_they_are_struck(ledger: Ledger) -> None:
    for attempt in (1, 2):
        assert ledger.note_failure(OBJECT, "a", 3, f"no {attempt}").attempts == attempt
    ((name, failure),) = ledger.failures(OBJECT).items()
    assert (name, failure.objects, failure.error, failure.attempts) == ("a", 3, "no 2", 2)
    ledger.strike(OBJECT, ["a"])
    assert ledger.failures(OBJECT) == {}


@given(counted=st.lists(st.tuples(st.sampled_from(ResourceType), st.sampled_from(Outcome), st.integers(0, 99))))
def test_both_ledgers_count_alike(counted: list[tuple[ResourceType, Outcome, int]]) -> None:
    both = [made() for made in LEDGERS]
    for one in both:
        for kind, outcome, number in counted:
            one.count(kind, outcome, number)
    assert both[0].counts() == both[1].counts()
    assert sum(map(sum, (kinds.values() for kinds in both[0].counts().values()))) == sum(n for _, _, n in counted)


def test_nothing_stays_in_redis_for_ever() -> None:
    redis = fakeredis.FakeRedis()
    one = RedisLedger(redis)
    one.schedule(OBJECT, {"a": 1.0})
    one.hold(OBJECT, ["b"])
    one.note_failure(OBJECT, "a", 1, "no")
    one.count(OBJECT, Outcome.CLEANED)
    one.due(OBJECT, 2.0)
    assert len(redis.keys()) == 4
    assert all(0 < redis.ttl(name) <= LEDGER_SECONDS for name in redis.scan_iter())


# The manager.


def test_each_policy_does_what_it_says(brokerless: Fleet, ledger: Ledger) -> None:
    s3 = S3Manager()
    waits = {CleanupPolicy.IMMEDIATE: 0, CleanupPolicy.DELAYED: 1, CleanupPolicy.DISABLED: 1}
    for policy, stays in waits.items():
        manager = ResourceManager(AsyncEndpointConfig(cleanup_policy=policy), s3, ledger)
        (uri,) = written(s3, policy)
        manager.register_s3_object(uri)
        assert manager.get_stats()["by_type"]["s3_object"] == 1
        assert manager.release_s3_objects([uri]).cleaned == 1 - stays
        assert manager.cleanup().cleaned == 0
        assert len(brokerless.objects()) == stays
        assert manager.cleanup(force=True).cleaned == stays
        assert (brokerless.objects(), manager.get_stats()["total_resources"]) == ([], 0)


@pytest.mark.usefixtures("brokerless")
def test_delayed_objects_go_when_their_time_has_come(ledger: Ledger) -> None:
    s3 = S3Manager()
    config = AsyncEndpointConfig(cleanup_policy="delayed", cleanup_delay_seconds=0.3)
    manager = ResourceManager(config, s3, ledger)
    uris = written(s3, "a", "b")
    manager.release_s3_objects(uris)
    wait_until(lambda: manager.cleanup().cleaned == 2)
    assert [s3.head(uri) for uri in uris] == [None, None]


@pytest.mark.usefixtures("brokerless")
def test_files_invocations_and_workers_are_cleaned_up_too(ledger: Ledger, tmp_path: Path) -> None:
    file, stopped = tmp_path / "tile.png", []
    file.write_bytes(b"x")
    with ResourceManager(AsyncEndpointConfig(), S3Manager(), ledger) as manager:
        manager.register_temporary_file(file)
        manager.register_invocation("job.1")
        manager.register_worker("submit@here", lambda: stopped.append("submit"))
        types = manager.get_stats()["by_type"]
        assert (types["temporary_file"], types["invocation"], types["worker"]) == (1, 1, 1)
        manager.release(ResourceType.INVOCATION, "job.1")
        assert manager.get_stats()["by_type"]["invocation"] == 0
    assert (file.exists(), stopped) == (False, ["submit"])
    stats = manager.get_stats()
    assert (stats["total_resources"], stats["by_outcome"]) == (0, {"registered": 3, "cleaned": 3, "failed": 0})


def test_what_cannot_be_deleted_is_counted_named_and_tried_again(brokerless: Fleet, ledger: Ledger) -> None:
    s3 = Stubborn()
    manager = ResourceManager(AsyncEndpointConfig(), s3, ledger)
    uris = written(s3, "a", "b", "c")
    s3.refused = frozenset(uris[1:2])
    done = manager.release_s3_objects(uris)
    assert (done.cleaned, done.failed) == (2, 1)
    assert manager.cleanup().failed == 1
    (failure,) = manager.get_stats()["failures"]
    assert (failure["resource"], failure["attempts"]) == (str(uris[1]), 2)
    assert "AccessDenied" in failure["error"]
    assert manager.get_stats()["by_outcome"] == {"registered": 0, "cleaned": 2, "failed": 2}
    s3.refused = frozenset()
    assert (manager.cleanup().cleaned, brokerless.objects()) == (1, [])
    assert manager.get_stats()["failures"] == []


@pytest.mark.usefixtures("brokerless")
def test_a_file_that_cannot_be_removed_is_named_and_tried_again(tmp_path: Path) -> None:
    manager = ResourceManager(AsyncEndpointConfig(), S3Manager())
    folder = tmp_path / "folder"
    folder.mkdir()
    manager.register_temporary_file(folder)
    assert manager.release(ResourceType.TEMPORARY_FILE, str(folder)).failed == 1
    assert manager.get_stats()["failures"][0]["resource"] == str(folder)
    folder.rmdir()
    folder.write_bytes(b"x")
    assert (manager.cleanup().cleaned, folder.exists()) == (1, False)


def test_nothing_outside_of_the_configured_places_is_touched(brokerless: Fleet) -> None:
    s3 = S3Manager()
    config = AsyncEndpointConfig(output_prefix="output")
    manager = ResourceManager(config, s3)
    places = [S3Uri(INPUTS, "tiles/a"), S3Uri(OUTPUTS, "elsewhere/a"), S3Uri("fleet-elsewhere", "a")]
    for uri in places:
        s3.put(uri, b"x")
        with pytest.raises(NotAllowedError, match="under none of the configured buckets"):
            manager.register_s3_object(uri)
        manager.ledger.schedule(OBJECT, {str(uri): 0.0})
    manager.delete(places, job_id="job")
    assert manager.cleanup(force=True).failed == 3
    assert len(brokerless.objects()) == 3
    assert {failure["resource"] for failure in manager.get_stats()["failures"]} == set(map(str, places))
    s3.delete(places)


# The fleet: what beat sweeps.


@pytest.fixture
def connections(here: Fleet) -> Iterator[Connections]:
    """A worker's, whose leftovers are old after a tenth of a second."""
    config = AsyncEndpointConfig(max_wait_time=0.05, cleanup_leftover_seconds=0.1, tile_roots=str(here.tiles))
    made = connect(config, new_app())
    yield made
    redis = state_client(made.app)
    for name in redis.scan_iter(f"{PREFIX}cleanup:*"):
        redis.delete(name)


def test_a_dead_process_leaves_its_delayed_objects_to_the_fleets_beat(here: Fleet, connections: Connections) -> None:
    config = AsyncEndpointConfig(cleanup_policy="delayed", cleanup_delay_seconds=0.2, inline_payload_max_bytes=0)
    resources = ResourceManager(config, S3Manager(), connections.resources.ledger)
    with AsyncSMDetector("scripted", config, resources=resources) as detector:
        detector.find_features(b'{"name": "a"}')
    assert len(here.objects()) == 2
    # Unless the fleet's own beat is first.
    wait_until(lambda: bool(connections.resources.ledger.due(OBJECT, time.time())) or not here.objects())
    sweep(connections)
    assert here.objects() == []


def test_the_message_that_beat_sends_has_a_worker_delete_what_is_due(here: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {}, "b": {}})
    variables = {"ASYNC_SM_CLEANUP_POLICY": "delayed", "ASYNC_SM_CLEANUP_DELAY_SECONDS": "0.5"}
    assert here.detect(tiles, "-e", "scripted", folder=tmp_path, **variables).status == 0
    assert len(here.objects()) >= 6
    sweeping = new_app()
    beat = sweeping.conf.beat_schedule["sweep"]

    def gone() -> bool:
        sweeping.send_task(beat["task"])
        return not here.objects()

    wait_until(gone)


def test_leftovers_of_the_dead_go_and_everything_else_stays(here: Fleet, connections: Connections) -> None:
    dead, kept = new_job_id(time.time()), new_job_id(time.time(), kept=True)
    root = S3Uri(OUTPUTS, "output")
    gone_root = S3Uri("bucket-of-last-year", "output")
    connections.records._redis.zadd(f"{PREFIX}roots", {str(root): time.time() + 60, str(gone_root): time.time() + 60})
    gone = [key(f"{dead}/payloads/1"), root.child(f"{dead}/00000/1.out")]
    stays = [
        key(f"{kept}/payloads/1"),
        key("somebody-elses/1"),
        root.child(f"{kept}/1.out"),
        S3Uri(INPUTS, f"{dead}/1"),
    ]
    for uri in gone + stays:
        connections.s3.put(uri, b"x")
    young = replace(connections, config=connections.config.model_copy(update={"cleanup_leftover_seconds": 900.0}))
    assert delete_leftovers(young).cleaned == 0
    wait_until(lambda: delete_leftovers(connections).cleaned == 2)
    assert set(here.objects()) == {str(uri).removeprefix("s3://") for uri in stays}
    connections.s3.delete(stays)


def test_a_job_in_which_nothing_happens_any_more_is_ended_and_removed(
    here: Fleet, connections: Connections, tiles: Path
) -> None:
    write_tiles(tiles, {"a": {}})
    job, _ = create_job(connections, find_tiles([str(tiles)]), "scripted", stage=True)
    assert len(here.objects()) == 3
    wait_until(lambda: delete_leftovers(connections).cleaned > 0 or not here.objects())
    status = JobHandle(connections, job.job_id).status()
    assert (status.state, here.objects()) == (JobState.FAILED, [])
    assert "nothing has happened to it" in str(status.error)


def test_a_job_whose_objects_are_refused_is_named_and_swept_later(
    here: Fleet, connections: Connections, tiles: Path
) -> None:
    write_tiles(tiles, {"a": {}, "b": {}})
    s3 = Stubborn(boto3.Session())
    ledger = connections.resources.ledger
    stubborn = replace(connections, s3=s3, resources=ResourceManager(connections.config, s3, ledger))
    job, _ = create_job(stubborn, find_tiles([str(tiles)]), "scripted", stage=True)
    s3.refused = frozenset(found.uri for found in s3.list(stubborn.input_uri(job.prefix)))
    JobHandle(stubborn, job.job_id).cancel()
    (failure,) = stubborn.resources.get_stats()["failures"]
    assert (failure["type"], failure["resource"], failure["objects"]) == ("job", job.job_id, 4)
    assert clean_up_jobs(stubborn, force=True).failed == 4
    s3.refused = frozenset()
    assert (clean_up_jobs(stubborn, force=True).cleaned, here.objects()) == (4, [])
    assert stubborn.resources.get_stats()["failures"] == []


def test_a_worker_without_a_heartbeat_is_counted_as_lost(connections: Connections) -> None:
    ledger = connections.resources.ledger
    before = ledger.counts()[ResourceType.WORKER][Outcome.FAILED]
    ledger.schedule(ResourceType.WORKER, {"gone@host": ledger.now() - 1})
    sweep(connections)
    assert "gone@host" not in ledger.entries(ResourceType.WORKER)
    assert ledger.counts()[ResourceType.WORKER][Outcome.FAILED] == before + 1


def test_the_fleets_workers_are_in_its_statistics(connections: Connections) -> None:
    wait_until(lambda: connections.resources.get_stats()["by_type"]["worker"] >= 3)


def test_only_names_that_we_make_are_swept() -> None:
    assert may_be_swept(new_job_id(1e9))
    others = ["", "tiles", "2026", new_job_id(1e9, kept=True), new_job_id(1e9) + "0", "20260101-000000-XXXXXXXX"]
    assert not any(map(may_be_swept, others))


def test_refused_objects_are_tried_again_ever_more_seldom_by_the_sweep() -> None:
    now = [0.0]
    calls: list[int] = []

    class Refusing:
        def delete(self, uris: Any) -> list[Undeleted]:
            wanted = list(uris)
            calls.append(len(wanted))
            return [Undeleted(uri, "AccessDenied: no") for uri in wanted]

    config = AsyncEndpointConfig(input_bucket="inputs", output_bucket="outputs")
    ledger = MemoryLedger(lambda: now[0])
    manager = ResourceManager(config, Refusing(), ledger)  # type: ignore[arg-type]
    job = new_job_id(1e9)
    manager.delete([S3Uri("outputs", f"{job}/00000/{number}.out") for number in range(500)], job_id=job)
    assert (len(ledger.failures(OBJECT)), len(ledger.failures(ResourceType.JOB))) == (0, 1)
    manager.release_s3_objects([S3Uri("outputs", "single.out")])
    for _ in range(40):
        now[0] += 30
        manager.cleanup(retry=False)
    assert len(calls) == 7
    manager.cleanup()
    assert len(calls) == 8


def test_delayed_objects_do_not_pile_up() -> None:
    now = [0.0]

    config = AsyncEndpointConfig(
        input_bucket="inputs", output_bucket="outputs", cleanup_policy="delayed", cleanup_delay_seconds=60
    )
    manager = ResourceManager(config, Willing(), MemoryLedger(lambda: now[0]))  # type: ignore[arg-type]
    for step in range(5):
        now[0] += 30
        manager.release_s3_objects(S3Uri("outputs", f"{step}-{number}.out") for number in range(6000))
        manager.cleanup(retry=False)
    assert manager.get_stats()["total_resources"] <= 3 * 6000


def test_of_two_threads_one_stops_a_worker() -> None:
    stops: list[int] = []
    gate = threading.Barrier(2)

    def stop() -> None:
        stops.append(1)
        with suppress(threading.BrokenBarrierError):
            gate.wait(timeout=0.5)

    config = AsyncEndpointConfig(input_bucket="inputs", output_bucket="outputs")
    manager = ResourceManager(config, object())  # type: ignore[arg-type]
    manager.register_worker("w", stop)
    threads = [threading.Thread(target=manager.release, args=(ResourceType.WORKER, "w")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(stops), manager.get_stats()["outcomes"]["worker"]["cleaned"]) == (1, 1)


def test_a_failure_bucket_of_its_own_is_cleaned_whatever_the_prefix_of_the_outputs() -> None:
    config = AsyncEndpointConfig(
        input_bucket="inputs", output_bucket="outputs", output_prefix="output", failure_bucket="failures"
    )
    manager = ResourceManager(config, object())  # type: ignore[arg-type]
    job = new_job_id(1e9)
    deletable = ["s3://failures/f/1-error.out", f"s3://outputs/failure/{job}/1", "s3://outputs/output/1"]
    foreign = ["s3://outputs/failure/1", "s3://others/output/1", "s3://inputs/tiles/1"]
    assert [manager.may_delete(S3Uri.parse(uri)) for uri in deletable + foreign] == [True] * 3 + [False] * 3


def test_an_entry_that_no_configuration_allows_is_given_up_in_the_end() -> None:
    now = [0.0]

    ledger = MemoryLedger(lambda: now[0])
    config = AsyncEndpointConfig(input_bucket="inputs", output_bucket="outputs")
    manager = ResourceManager(config, Willing(), ledger)  # type: ignore[arg-type]
    ledger.schedule(OBJECT, {"s3://others/a": 0.0})
    for _ in range(8 * 24):
        now[0] += 3600
        manager.cleanup(retry=False)
    assert ledger.entries(OBJECT) == {}


def test_disabled_holds_even_for_a_process_that_dies() -> None:
    ledger = RedisLedger(fakeredis.FakeRedis())
    config = AsyncEndpointConfig(input_bucket="inputs", output_bucket="outputs", cleanup_policy="disabled")
    ResourceManager(config, object(), ledger).register_s3_object("s3://outputs/a.out")  # type: ignore[arg-type]
    assert ledger.entries(OBJECT) == {"s3://outputs/a.out": float("inf")}


# The command line.


def test_a_directory_that_is_no_jobs_is_not_removed(here: Fleet) -> None:
    here.s3.put_object(Bucket=INPUTS, Key="imagery/a.tif", Body=b"precious")
    done = here.run("cleanup", "--job", "imagery", ASYNC_SM_INPUT_PREFIX="/")
    assert (done.returncode, "no record of job 'imagery'" in done.stderr) == (2, True)
    assert here.objects() == [f"{INPUTS}/imagery/a.tif"]
    here.s3.delete_object(Bucket=INPUTS, Key="imagery/a.tif")


def test_what_was_refused_is_clean_once_that_is_mended(here: Fleet, connections: Connections, tiles: Path) -> None:
    write_tiles(tiles, {"a": {}})
    for arguments in ((), ("--job",)):
        job = here.run("detect", tiles, "-e", "scripted", "--no-wait").stdout.strip()
        assert here.run("watch", job).returncode == 0
        connections.records.mark_fetched(job)
        for _ in range(5):
            connections.resources.note_job(job, "AccessDenied: mended since")
        done = here.run("cleanup", *arguments, *([job] if arguments else []))
        assert (done.returncode, here.objects()) == (0, []), done.stderr
        assert connections.resources.get_stats()["failures"] == []


def test_the_command_says_what_it_deleted_and_what_waits(here: Fleet, tiles: Path) -> None:
    write_tiles(tiles, {"a": {}, "b": {}})
    variables = {"ASYNC_SM_CLEANUP_POLICY": "delayed", "ASYNC_SM_CLEANUP_DELAY_SECONDS": "3600"}
    started = here.run("detect", tiles, "-e", "scripted", "--no-wait", **variables)
    job = started.stdout.strip()
    assert here.run("watch", job).returncode == 0
    waiting = here.run("cleanup")
    assert (waiting.returncode, "waiting: 1 of job" in waiting.stdout) == (0, True), waiting.stderr
    assert len(here.objects()) >= 6
    forced = here.run("cleanup", "--force")
    assert (forced.returncode, here.objects()) == (0, []), forced.stderr
    assert "waiting" not in forced.stdout
    stats = json.loads(here.run("cleanup", "--json").stdout)
    assert (stats["cleaned"], stats["failures"]) == (0, [])
    assert stats["outcomes"]["s3_object"]["cleaned"] >= 6
    assert stats["outcomes"]["invocation"]["registered"] >= 2


def test_one_job_can_be_removed_even_while_it_runs(here: Fleet, tiles: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_tiles(tiles, {f"t{number}": {"after": str(gate)} for number in range(80)})
    job = here.run("detect", tiles, "-e", "slow", "--no-wait").stdout.strip()
    refused = here.run("cleanup", "--job", job)
    assert (refused.returncode, "still running: wait for it or cancel it" in refused.stderr) == (2, True)
    done = here.run("cleanup", "--job", job, "--force")
    gate.touch()
    assert done.returncode == 0, done.stderr
    assert '"state": "cancelled"' in here.run("status", job, "--json").stdout
    assert here.run("cleanup", "--job", new_job_id(1e9)).stdout.startswith("0 deleted")
    wait_until(lambda: here.stats("slow")["in_flight"] == 0)
    wait_until(lambda: here.run("cleanup", "--job", job).stdout.startswith("0 deleted"))
