"""What workers note of themselves, with the real scripts on fakeredis, and by the part of a worker that notes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.concurrency.solo import TaskPool as SoloPool

from osml_tasks.celery_settings import QUEUES
from osml_tasks.consumers import KEY_PREFIX, NOTE_SECONDS, Consumers
from osml_tasks.presence import Presence

SUBMIT, POLL, *_ = QUEUES
NOBODY = dict.fromkeys(QUEUES, 0)


@pytest.fixture
def redis() -> Any:
    return fakeredis.FakeRedis()


@pytest.fixture
def consumers(redis: Any) -> Consumers:
    return Consumers(redis)


def test_each_queue_counts_the_workers_that_have_noted_it(consumers: Consumers) -> None:
    assert consumers.counts() == NOBODY
    consumers.note("one@a", [SUBMIT])
    consumers.note("two@a", [SUBMIT, POLL])
    consumers.note("two@a", [SUBMIT, POLL])
    assert consumers.counts() == NOBODY | {SUBMIT: 2, POLL: 1}


def test_a_worker_that_notes_other_queues_has_left_those_before(consumers: Consumers) -> None:
    consumers.note("one@a", [SUBMIT, POLL])
    consumers.note("one@a", [POLL, "of-another-program"])
    assert consumers.counts() == NOBODY | {POLL: 1}
    consumers.note("one@a", [])
    assert consumers.counts() == NOBODY


def test_a_note_expires_and_so_does_all_that_is_kept(redis: Any, consumers: Consumers) -> None:
    consumers.note("dead@a", [POLL])
    redis.zincrby(KEY_PREFIX + POLL, -NOTE_SECONDS, "dead@a")
    assert consumers.counts() == NOBODY
    consumers.note("one@a", [POLL])
    assert redis.zrange(KEY_PREFIX + POLL, 0, -1) == [b"one@a"]
    assert 0 < redis.ttl(KEY_PREFIX + POLL) <= NOTE_SECONDS


def test_whether_one_worker_consumes_all_of_some_queues(redis: Any, consumers: Consumers) -> None:
    consumers.note("one@a", [SUBMIT])
    assert consumers.has_noted("one@a", [SUBMIT])
    assert not consumers.has_noted("one@a", [SUBMIT, POLL])
    assert not consumers.has_noted("two@a", [SUBMIT])
    redis.zincrby(KEY_PREFIX + SUBMIT, -NOTE_SECONDS, "one@a")
    assert not consumers.has_noted("one@a", [SUBMIT])


class Timers:
    """A worker's own timer, which goes on when it is told to."""

    def __init__(self) -> None:
        self.entries: list[Callable[[], None]] = []

    def call_repeatedly(self, _: float, function: Callable[..., None], arguments: tuple[Any, ...]) -> Any:
        self.entries.append(lambda: function(*arguments))
        return self.entries[-1]

    def cancel(self, entry: Any) -> None:
        self.entries.remove(entry)

    def tick(self) -> None:
        for entry in self.entries:
            entry()


def _worker(redis: Any, pool: type[Any], *queues: str) -> Any:
    """What this part of a worker sees of the rest."""
    app = SimpleNamespace(
        backend=SimpleNamespace(client=redis),
        amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=dict.fromkeys(queues))),
    )
    return SimpleNamespace(app=app, hostname="one@a", pool=object.__new__(pool), timer=Timers())


class _OftenPresence(Presence):
    every = 0.01


def test_a_worker_notes_what_it_consumes_until_it_takes_it_back(redis: Any, consumers: Consumers) -> None:
    worker = _worker(redis, PreforkPool, SUBMIT, POLL)
    presence = Presence(worker)
    presence.start(worker)
    assert consumers.counts() == NOBODY | {SUBMIT: 1, POLL: 1}
    redis.flushall()
    worker.timer.tick()
    assert consumers.counts() == NOBODY | {SUBMIT: 1, POLL: 1}
    del worker.app.amqp.queues.consume_from[SUBMIT]
    worker.timer.tick()
    assert consumers.counts() == NOBODY | {POLL: 1}
    worker.presence.withdraw(worker)
    worker.timer.tick()
    presence.start(worker)
    assert consumers.counts() == NOBODY


def test_a_lost_connection_takes_nothing_back(redis: Any, consumers: Consumers) -> None:
    worker = _worker(redis, PreforkPool, POLL)
    presence = Presence(worker)
    presence.start(worker)
    presence.stop(worker)
    assert (consumers.counts()[POLL], worker.timer.entries) == (1, [])
    presence.start(worker)
    assert len(worker.timer.entries) == 1


def test_a_solo_worker_notes_it_while_a_task_holds_up_its_own_timer(redis: Any, consumers: Consumers) -> None:
    worker = _worker(redis, SoloPool, POLL)
    presence = _OftenPresence(worker)
    presence.start(worker)
    redis.flushall()
    deadline = time.monotonic() + 20
    while consumers.counts()[POLL] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    presence.withdraw(worker)
    assert consumers.counts() == NOBODY


def test_no_trouble_with_its_notes_stops_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    server = fakeredis.FakeServer()
    worker = _worker(fakeredis.FakeRedis(server=server), PreforkPool, POLL)
    server.connected = False
    presence = Presence(worker)
    presence.start(worker)
    presence.withdraw(worker)
    assert caplog.text.count("the fleet does not hear of this worker") == 2
