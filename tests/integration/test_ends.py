"""How jobs end: races between those who end them, and processes that die on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from osml_tasks import assembly, job_cleanup
from osml_tasks.assembly import assemble_job, end_job
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections, open_connections
from osml_tasks.detection import create_job, start_job
from osml_tasks.errors import ExtensionRuntimeError, S3AccessError
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import Job, JobState, Shard
from osml_tasks.ledger import ResourceType
from osml_tasks.publishing import job_chord
from osml_tasks.redis_keys import PREFIX
from osml_tasks.remote_call import called_job
from osml_tasks.sources import find_tiles
from osml_tasks.sweep import clean_up_jobs, remove_job, sweep
from tests.integration.fleet import PATIENCE, Fleet, strange_app, wait_until, write_tiles


@pytest.fixture
def connections(here: Fleet) -> Connections:
    """A client's."""
    return open_connections(AsyncEndpointConfig())


@pytest.fixture(autouse=True)
def _fresh_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process may have published to another broker before."""
    from osml_tasks.celery import client_app, new_app

    client_app.cache_clear()
    monkeypatch.setattr("osml_tasks.connections.client_app", new_app)
    yield
    client_app.cache_clear()


def completed(connections: Connections, tiles: Path) -> JobHandle:
    handle = start_job(connections, find_tiles([str(write_tiles(tiles, {"a": {}}))]), "scripted")
    assert handle.wait(PATIENCE).state is JobState.COMPLETED
    return handle


def prepared(connections: Connections, tiles: Path) -> Job:
    """A job that nobody works on."""
    return create_job(connections, find_tiles([str(write_tiles(tiles, {"a": {}}))]), "scripted", stage=True)[0]


def of(fleet: Fleet, job_id: str) -> list[str]:
    return [name for name in fleet.objects() if job_id in name]


def test_whoever_loses_the_race_against_completion_changes_nothing(connections: Connections, tiles: Path) -> None:
    handle = completed(connections, tiles)
    for state in (JobState.CANCELLED, JobState.FAILED):
        end_job(connections, handle.job_id, state, "too late")
    assert handle.status().state is JobState.COMPLETED
    assert len(handle.result()["features"]) == 1
    handle.discard()


def test_assembly_that_outlives_a_cancel_leaves_nothing(
    here: Fleet, connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepared(connections, tiles)
    connections.s3.put(connections.input_uri(job.part_key(0)), b"")
    real = assembly._collection

    def cancelled_meanwhile(*arguments: Any) -> list[bytes]:
        collection = list(real(*arguments))
        assert JobHandle(connections, job.job_id).cancel()
        return collection

    monkeypatch.setattr(assembly, "_collection", cancelled_meanwhile)
    assemble_job(connections, job.job_id)
    assert JobHandle(connections, job.job_id).status().state is JobState.CANCELLED
    assert of(here, job.job_id) == []


def test_a_process_that_dies_while_it_ends_a_job_leaves_that_to_the_sweep(
    here: Fleet, connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepared(connections, tiles)
    handle = JobHandle(connections, job.job_id)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(job_cleanup, "delete_job", killed)
        with pytest.raises(KeyboardInterrupt):
            handle.cancel()
    assert (handle.status().state, handle.status().finished) == (JobState.CANCELLED, None)
    connections.resources.ledger.schedule(ResourceType.JOB, {job.job_id: 0.0})
    connections.publish(sweep(connections))
    assert (handle.status().finished is not None, of(here, job.job_id)) == (True, [])


def test_a_worker_that_dies_after_the_end_is_finished_for_by_the_next(connections: Connections, tiles: Path) -> None:
    handle = completed(connections, tiles)
    connections.records._redis.hdel(f"{PREFIX}job:{handle.job_id}", "finished")
    assemble_job(connections, handle.job_id)
    assert handle.wait(PATIENCE).finished is not None
    handle.discard()


def test_a_running_job_cannot_be_discarded(connections: Connections, tiles: Path) -> None:
    job = prepared(connections, tiles)
    handle = JobHandle(connections, job.job_id)
    with pytest.raises(ExtensionRuntimeError, match="still queued: wait for it, or cancel it, first"):
        handle.discard()
    handle.cancel()


def test_the_callers_delay_counts_and_not_the_workers(here: Fleet, tiles: Path) -> None:
    patient = open_connections(AsyncEndpointConfig(cleanup_policy="delayed", cleanup_delay_seconds=86_400))
    handle = completed(patient, tiles)
    due = patient.resources.ledger.entries(ResourceType.JOB)[handle.job_id]
    assert due - patient.records.now() > 80_000
    assert clean_up_jobs(patient, force=True).cleaned > 0


@pytest.mark.parametrize("policy", ["delayed", "disabled"])
def test_answers_outside_of_the_jobs_directories_are_not_forgotten(here: Fleet, tiles: Path, policy: str) -> None:
    patient = open_connections(AsyncEndpointConfig(cleanup_policy=policy, cleanup_delay_seconds=3600))
    write_tiles(tiles, {f"{policy}-{number}": {"fail_first": number} for number in range(3)})
    handle = start_job(patient, find_tiles([str(tiles)]), "old-region")
    assert handle.wait(PATIENCE).state is JobState.COMPLETED
    # Three outputs, three failure objects, and what is in the job's directory.
    assert len(here.objects()) > 6
    clean_up_jobs(patient, force=True)
    assert here.objects() == []


@pytest.mark.parametrize("policy", ["immediate", "delayed", "disabled"])
def test_s3_in_trouble_keeps_no_job_from_its_end(
    here: Fleet, tiles: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    patient = open_connections(AsyncEndpointConfig(cleanup_policy=policy))
    job = prepared(patient, tiles)
    handle = JobHandle(patient, job.job_id)

    def refused(*_: Any, **__: Any) -> None:
        raise S3AccessError("LIST s3://fleet-in/ was denied", uri="s3://fleet-in/")

    with monkeypatch.context() as trouble:
        trouble.setattr(job_cleanup, "delete_directories", refused)
        assert handle.cancel()
        assert handle.wait(PATIENCE).state is JobState.CANCELLED
        with suppress(S3AccessError):
            handle.discard()
        patient.resources.ledger.schedule(ResourceType.JOB, {job.job_id: 0.0})
        clean_up_jobs(patient)
    assert len(of(here, job.job_id)) == 3  # payload, manifest, record
    clean_up_jobs(patient, force=True)
    assert of(here, job.job_id) == []


def test_a_kept_job_that_is_removed_leaves_nothing_even_later(here: Fleet, tiles: Path) -> None:
    keeping = open_connections(AsyncEndpointConfig(cleanup_policy="disabled"))
    write_tiles(tiles, {f"t{number}": {} for number in range(3)})
    handle = start_job(keeping, find_tiles([str(tiles)]), "one-at-a-time")
    wait_until(lambda: handle.progress().invoked == 3)
    assert remove_job(keeping, handle.job_id, force=True).failed == 0
    wait_until(lambda: here.stats("one-at-a-time")["in_flight"] == 0)
    keeping.resources.ledger.schedule(ResourceType.JOB, {handle.job_id: 0.0})
    wait_until(lambda: clean_up_jobs(keeping, force=True).failed == 0 and not of(here, handle.job_id))


def test_a_worker_that_is_stopped_while_it_starts_a_job_leaves_it_to_the_next(
    here: Fleet, connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = replace(connections, config=connections.config.model_copy(update={"tile_roots": (here.tiles,)}))
    write_tiles(tiles, {"a": {}})
    call = f"stopped-{time.time()}"

    def stopped(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as stopping:
        stopping.setattr("osml_tasks.detection._stage", stopped)
        with pytest.raises(SystemExit):
            called_job(local, call, str(tiles), "scripted", {})
    job, shards = called_job(local, call, str(tiles), "scripted", {})
    assert (len(shards), JobHandle(local, job.job_id).status().state) == (1, JobState.QUEUED)
    JobHandle(local, job.job_id).cancel()


def test_a_shard_whose_job_is_unknown_holds_no_capacity(connections: Connections) -> None:
    lost = Shard("lost-job", 0, 0, 4, 0, 0)
    connections.records._redis.sadd(f"{PREFIX}endpoints", "lonely")
    assert connections.capacity.request("lonely", lost, 4, 4, "").held
    connections.give_back(lost)
    assert connections.records._redis.hlen(f"{PREFIX}capacity:lonely:held") == 0


def test_the_policy_counts_even_where_another_process_has_to_clean_up(here: Fleet, tiles: Path) -> None:
    patient = open_connections(AsyncEndpointConfig(cleanup_policy="delayed", cleanup_delay_seconds=7200))
    job = prepared(patient, tiles)
    elsewhere = replace(patient, config=patient.config.model_copy(update={"input_bucket": "somebody-elses"}))
    end_job(elsewhere, job.job_id, JobState.FAILED, "of another bucket")
    due = patient.resources.ledger.entries(ResourceType.JOB)[job.job_id]
    assert due - patient.records.now() > 7000
    clean_up_jobs(patient, force=True)
    assert of(here, job.job_id) == []


@pytest.fixture
def stranger(here: Fleet) -> Celery:
    url = here.env["CELERY_BROKER_URL"]
    return strange_app(url)


def test_a_call_whose_job_is_cancelled_is_answered_even_if_shards_were_waiting(
    here: Fleet, connections: Connections, stranger: Celery, tiles: Path
) -> None:
    write_tiles(tiles, {f"t{number:02d}": {} for number in range(16)})
    options = {"endpoint": "one-at-a-time", "max_concurrent_jobs": 4}
    sent = stranger.send_task("osml_tasks.detect", args=[str(tiles)], kwargs=options, queue="osml.submit")
    redis = connections.records._redis
    wait_until(lambda: redis.hlen(f"{PREFIX}capacity:one-at-a-time:parked") >= 8)
    job_id = redis.get(f"{PREFIX}claim:detect/{sent.id}").decode()
    assert JobHandle(connections, job_id).cancel()
    assert sent.get(timeout=PATIENCE)["state"] == "cancelled"
    wait_until(lambda: here.stats("one-at-a-time")["in_flight"] == 0)
    wait_until(lambda: here.run("cleanup", "--job", job_id).stdout.startswith("0 deleted"))


def test_a_call_that_comes_again_after_its_job_is_over_changes_nothing(
    here: Fleet, connections: Connections, tiles: Path
) -> None:
    local = replace(connections, config=connections.config.model_copy(update={"tile_roots": (here.tiles,)}))
    write_tiles(tiles, {"a": {}})
    call = f"again-{time.time()}"
    job, shards = called_job(local, call, str(tiles), "scripted", {})
    assert len(shards) == 1
    end_job(local, job.job_id, JobState.CANCELLED, "by this test")
    again, nothing = called_job(local, call, str(tiles), "scripted", {})
    assert (again.job_id, nothing) == (job.job_id, [])
    assert JobHandle(local, job.job_id).status().state is JobState.CANCELLED


def test_a_chord_that_celery_holds_for_failed_is_assembled_all_the_same(here: Fleet, tiles: Path) -> None:
    connections = open_connections(AsyncEndpointConfig(tile_roots=(here.tiles,)))
    sources = find_tiles([str(write_tiles(tiles, {"a": {}, "b": {}}))])
    job, shards = create_job(connections, sources, "scripted", stage=False)
    chord = job_chord(connections.app, job, shards)
    # Such as one whose next message could not be sent in time, though it was sent later.
    refused = {"sources": "s3://nobodys/", "endpoint": "scripted"}
    chord.tasks.append(connections.app.signature("osml_tasks.detect", kwargs=refused, immutable=True))
    chord.apply_async()
    handle = JobHandle(connections, job.job_id)
    handle.wait(timeout=PATIENCE)
    assert len(handle.result()["features"]) == 2
    handle.discard()
