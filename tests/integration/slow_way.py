"""A way to a server that can be made slow, or blocked, while a test runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_PIECE = 1 << 20


class SlowWay:
    """Hands on what comes over TCP, each piece of a request after a delay; a context manager.

    :param target: the server's URL.
    :ivar url: where to reach it by this way.
    :ivar delay: s that each piece waits, from now on.
    :ivar sent: bytes of requests that were handed on.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self.url = ""
        self.delay = 0.0
        self.sent = 0
        self._loop = asyncio.new_event_loop()
        self._serving = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._serving.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._connect, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._serving.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(*self._target)
        await asyncio.gather(self._hand_on(reader, requests, slowly=True), self._hand_on(answers, writer, slowly=False))

    async def _hand_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, slowly: bool) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            while piece := await source.read(_PIECE):
                if slowly:
                    await asyncio.sleep(self.delay)
                    self.sent += len(piece)
                sink.write(piece)
                await sink.drain()
        sink.close()
