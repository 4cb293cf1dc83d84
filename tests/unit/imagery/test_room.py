"""Room in memory, by threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, Thread

import pytest

from osml_tasks.imagery.room import Room
from tests.waiting import PATIENCE, wait_until


def test_threads_hold_no_more_than_there_is() -> None:
    room, lock = Room(100), Lock()
    held, most = [0], [0]

    def hold(size: int) -> None:
        with room.take(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
            Event().wait(0.001)
            with lock:
                held[0] -= size

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(hold, [10, 35, 60, 100] * 40))
    assert held == [0]
    assert 60 < most[0] <= 100


def test_one_that_is_larger_than_all_room_gets_in_alone() -> None:
    room, entered, may_leave = Room(100), Event(), Event()

    def hold() -> None:
        with room.take(1000):
            entered.set()
            may_leave.wait(PATIENCE)

    waiting = Thread(target=hold)
    with room.take(1):
        waiting.start()
        assert not entered.wait(0.05)
    assert entered.wait(PATIENCE)
    follower = Event()
    behind = Thread(target=lambda: _take(room, follower))
    behind.start()
    assert not follower.wait(0.05)
    may_leave.set()
    wait_until(follower.is_set)
    waiting.join()
    behind.join()


def _take(room: Room, taken: Event) -> None:
    with room.take(1):
        taken.set()


def test_a_failure_gives_its_room_back() -> None:
    room = Room(100)
    with pytest.raises(ValueError, match="on purpose"), room.take(100):
        raise ValueError("on purpose")
    with room.take(100):
        pass
