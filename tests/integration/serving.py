"""A server of a test's own, on an event loop in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.waiting import PATIENCE

Result = TypeVar("Result")


class Serving:
    """A context manager; subclasses say how to open and close what serves."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._is_open = Event()
        self._thread = Thread(target=self._run, daemon=True)

    async def open(self) -> None:
        """Begin to serve."""
        raise NotImplementedError

    async def close(self) -> None:
        """End it."""

    def on_loop(self, step: Coroutine[Any, Any, Result]) -> Result:
        """Do something where it serves."""
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(PATIENCE)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_open.wait(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # a client that refuses us is what tests are about
        self._loop.run_until_complete(self.open())
        self._is_open.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self.close())
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
