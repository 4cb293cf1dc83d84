"""An HTTP proxy that takes every host's connections to one server, and remembers the hosts."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress

from tests.integration.serving import Serving

_PIECE = 1 << 16


class Proxy(Serving):
    """Answers to CONNECT; a context manager.

    :param port: the server's, on loopback.
    :param login: ``user:password`` that it asks for; None for none.
    :ivar refuses: whether it lets nobody through.
    :ivar hosts: those that were asked for, with their ports.
    """

    def __init__(self, port: int, login: str | None = None) -> None:
        super().__init__()
        self._target = port
        self._login = login
        self.refuses = False
        self.hosts: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more."""
        self._server.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target = head.split(" ", 2)[:2]
            if status := self._refusal(method, head):
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
                writer.close()
                return
            self.hosts.append(target)
            answers, requests = await asyncio.open_connection("127.0.0.1", self._target)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_hand_on(reader, requests), _hand_on(answers, writer))

    def _refusal(self, method: str, head: str) -> str | None:
        if method != "CONNECT" or self.refuses:
            return "403 Forbidden"
        if self._login is None:
            return None
        token = base64.b64encode(self._login.encode()).decode()
        is_known = f"proxy-authorization: basic {token}".lower() in head.lower()
        return None if is_known else "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic"


async def _hand_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.CancelledError):
        while piece := await source.read(_PIECE):
            sink.write(piece)
            await sink.drain()
    sink.close()
