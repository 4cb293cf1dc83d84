"""A way to a server by TLS: real certificates before a real server that has none."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import trustme

from tests.waiting import PATIENCE

_PIECE = 1 << 16


class TlsWay:
    """Hands on what comes over TLS; a context manager.

    :param target: the server's URL.
    :param name: what the certificate is for.
    :ivar ca_file: the certificate of its authority.
    :ivar port: where it listens on loopback.
    """

    def __init__(self, target: str, directory: Path, name: str = "localhost") -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 0))
        authority = trustme.CA()
        self.ca_file = directory / f"{name}-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(self._tls)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._serving = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._serving.wait(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.set_exception_handler(lambda *_: None)  # a client that refuses us is what tests are about
        server = self._loop.run_until_complete(asyncio.start_server(self._connect, "localhost", 0, ssl=self._tls))
        self.port = server.sockets[0].getsockname()[1]
        self._serving.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(*self._target)
        await asyncio.gather(self._hand_on(reader, requests), self._hand_on(answers, writer))

    async def _hand_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            while piece := await source.read(_PIECE):
                sink.write(piece)
                await sink.drain()
        sink.close()
