"""A Valkey that dies, comes back on its port, and keeps or loses its data."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import redis

from osml_tasks.local.broker import Broker

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
