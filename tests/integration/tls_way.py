"""A way to a server by TLS: real certificates before a real server that has none."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import trustme

from tests.integration.serving import Serving

_PIECE = 1 << 16


class TlsWay(Serving):
    """Hands on what comes over TLS; a context manager.

    :param target: the server's URL.
    :param name: what the certificate is for.
    :ivar ca_file: the certificate of its authority.
    :ivar port: where it listens on loopback.
    """

    def __init__(self, target: str, directory: Path, name: str = "localhost") -> None:
        super().__init__()
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 0))
        authority = trustme.CA()
        self.ca_file = directory / f"{name}-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(self._tls)
        self.port = 0

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connect, "localhost", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more."""
        self._server.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(*self._target)
        await asyncio.gather(self._hand_on(reader, requests), self._hand_on(answers, writer))

    async def _hand_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            while piece := await source.read(_PIECE):
                sink.write(piece)
                await sink.drain()
        sink.close()
