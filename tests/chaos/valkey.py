"""A Valkey that dies, comes back on its port, and keeps or loses its data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import redis

from osml_tasks.child_process import ChildProcess
from osml_tasks.local.broker import Broker

FAKETIME = next((str(path) for path in sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
"""The library that gives a process a clock of its own; None where Debian's package libfaketime is not installed."""
_DATA = "appendonlydir"


class Valkey(Broker):
    """A broker with its data on disk."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, persist=True)

    @cached_property
    def client(self) -> Any:
        """A Redis client of it."""
        return redis.Redis.from_url(self.url)

    def kill(self) -> None:
        """Kill it; its data stay on disk."""
        assert self._child is not None
        self._child.stop(grace=0)

    def start_again(self) -> None:
        """Start it with what is on disk, if it does not run; returns when it answers."""
        assert self._child is not None
        self._child.start()
        self.wait_ready()

    def lose_data(self) -> None:
        """Delete what is on disk, while it does not run."""
        shutil.rmtree(self.directory / _DATA)

    def copy_data(self) -> None:
        """Keep a copy of its data as they are now."""
        copy = self.directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.directory / _DATA, copy)

    def go_back(self) -> None:
        """Put the copy in the place of its data, while it does not run."""
        self.lose_data()
        (self.directory / "copy").rename(self.directory / _DATA)

    @contextmanager
    def own_clock(self) -> Iterator[Callable[[int], None]]:
        """Have it run with a clock that is ahead by as many seconds as what this yields is called with."""
        assert self._child is not None
        assert FAKETIME, "the broker has no clock of its own without libfaketime: apt-get install libfaketime"
        clock = self.directory / "clock"

        def set_ahead(seconds: int) -> None:
            # In one step: it is read all the time.
            (self.directory / "clock.new").write_text(f"+{seconds}")
            (self.directory / "clock.new").replace(clock)

        set_ahead(0)
        usual = self._child
        names = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
        self.kill()
        env = {**os.environ, **names, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self._child = ChildProcess(self.name, usual._command, directory=self.directory, env=env)
        self.start_again()
        try:
            yield set_ahead
        finally:
            self.kill()
            self._child = usual
            self.start_again()
