"""What may be in flight at an endpoint, over workers that come, go and die, and over jobs that share it."""

from __future__ import annotations

from pathlib import Path

from osml_tasks.capacity import Capacity
from osml_tasks.errors import JobTimeoutError
from osml_tasks.jobs import JobState, Shard
from osml_tasks.records import RECORD_SECONDS
from osml_tasks.recovery import SILENT_SECONDS
from osml_tasks.redis_keys import PREFIX
from tests.integration.crew import ALL, POLL, REST, SUBMIT, Crew, numbered
from tests.integration.fleet import PATIENCE, names, wait_until, write_tiles

VISIBILITY_TIMEOUT, CLAIM = 90, 75


def let_time_pass(workers: Crew) -> None:
    """What the dead held is due: as it is after the visibility timeout, and claims have ended before."""
    broker = workers.broker
    for claim in broker.keys(f"{PREFIX}claim:*/submit"):
        broker.expire(claim, max(1, broker.ttl(claim) - CLAIM))
    for tag in broker.zrange(f"{PREFIX}unacked_index", 0, -1):
        broker.zincrby(f"{PREFIX}unacked_index", -VISIBILITY_TIMEOUT, tag)


def sweep_as_after(workers: Crew, job_id: str, silence: int) -> None:
    """Have the sweep find a job of which nothing has been heard for so many seconds."""
    # The first one looks what S3 knows of the job, which is a sign of life.
    workers.app.send_task("osml_tasks.cleanup", queue="osml.cleanup")
    wait_until(lambda: bool(workers.broker.keys(f"{PREFIX}note:restored/*")))
    workers.broker.expire(f"{PREFIX}job:{job_id}", RECORD_SECONDS - silence)
    workers.app.send_task("osml_tasks.cleanup", queue="osml.cleanup")


def test_in_flight_stays_within_its_bound_while_workers_come_go_and_die(workers: Crew, tiles: Path) -> None:
    write_tiles(tiles, numbered(240))
    first = [workers.launch("submit-1", SUBMIT, 2), workers.launch("poll-1", f"{POLL},{REST}", 2)]

    def finished(count: int) -> None:
        wait_until(lambda: job.progress().finished >= count)

    with workers.job(tiles, "crowded", max_concurrent_jobs=32, polling_interval=1, max_polling_interval=1) as job:
        finished(20)
        doomed = [workers.launch("submit-2", SUBMIT, 2), workers.launch("poll-2", POLL, 2)]
        for worker in doomed:
            worker.wait_ready()
        finished(60)
        for worker in doomed:
            worker.kill()
        workers.launch("all-3", ALL, 2)
        for worker in first:
            worker.terminate()
        wait_until(lambda: all(worker.has_ended for worker in first))
        # Nothing but what the dead had at hand is left to be done.
        wait_until(lambda: workers.fleet.stats("crowded")["in_flight"] == 0)
        assert job.progress().finished > 60
        if not job.status().state.is_over:
            let_time_pass(workers)
        try:
            job.wait(60)
        except JobTimeoutError:
            # A message may go with a worker at the moment when it is taken.
            sweep_as_after(workers, job.job_id, 2 * SILENT_SECONDS)
        assert job.wait(PATIENCE).state is JobState.COMPLETED
        assert names(job.result()["features"]) == [*numbered(240)]
        assert workers.fleet.stats("crowded")["in_flight_max"] == 32


def test_what_is_lost_for_good_comes_back_with_its_lease(workers: Crew) -> None:
    capacity = Capacity(workers.broker, lease=2, grant=1)
    lost, next_one, last = (Shard("job", number, number, 8, 0, 0) for number in range(3))
    assert capacity.request("ships", lost, 8, 8, "lost").held
    assert not capacity.request("ships", next_one, 8, 8, "next").held
    assert not capacity.request("ships", last, 8, 8, "last").held
    assert capacity.grant("ships").messages == ()
    granted: list[str] = []

    def has_come(message: str) -> bool:
        granted.extend(capacity.grant("ships").messages)
        return message in granted

    wait_until(lambda: has_come("next"))
    # Nobody takes it up, so it waits again, at the head of its job; "last" has to wait, too.
    granted.clear()
    wait_until(lambda: has_come("next"))
    assert granted == ["next"]
    assert capacity.request("ships", next_one, 8, 8, "next").held
    assert capacity.keep("ships", next_one, 0).messages == ("last",)


def test_a_small_job_gets_its_share_beside_a_large_one(workers: Crew, tiles: Path) -> None:
    write_tiles(tiles / "large", numbered(800, "l"))
    write_tiles(tiles / "small", numbered(40, "s"))
    workers.launch("all", ALL, 2)
    with workers.job(tiles / "large", "fair", max_concurrent_jobs=32) as large:
        wait_until(lambda: large.progress().finished >= 40)
        with workers.job(tiles / "small", "fair", max_concurrent_jobs=32) as small:
            before = large.progress().finished
            assert small.wait(PATIENCE).state is JobState.COMPLETED
            meanwhile = large.progress().finished - before
            assert names(small.result()["features"]) == [*numbered(40, "s")]
        # Its turns are every other one; before the first, what was in flight has to end.
        assert meanwhile < 2 * 40 + 2 * 32
        assert large.cancel()


def test_an_endpoint_that_stands_still_holds_up_no_other(workers: Crew, tiles: Path) -> None:
    write_tiles(tiles, numbered(40))
    workers.launch("all", ALL, 2)
    with workers.job(tiles, "silent", max_concurrent_jobs=8) as stuck:
        wait_until(lambda: workers.fleet.stats("silent")["in_flight"] == 0 and stuck.progress().invoked == 8)
        with workers.job(tiles, "scripted", max_concurrent_jobs=8) as job:
            assert job.wait(PATIENCE).state is JobState.COMPLETED
            assert len(job.result()["features"]) == 40
        assert (stuck.progress().invoked, stuck.progress().finished) == (8, 0)
