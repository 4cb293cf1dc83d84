"""A way to servers on which every request is held back for a while, and counted: a process of its own.

``python -m benchmarks.delayed_way --delay 0.06 s3=http://127.0.0.1:8333 ...`` prints one line, ``ready`` and the
addresses by name as JSON; at the address ``counts`` is how many requests each has seen. Connections are kept, as
many as callers open, and bytes pass as fast as they can: only what a round trip costs is added.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import click

from osml_tasks.child_process import ChildProcess
from osml_tasks.local.server import LOOPBACK, LocalServer

START_SECONDS = 20.0
_PIECE = 1 << 18
_GO_ON = b"HTTP/1.1 100"
_END = b"\r\n\r\n"


class DelayedWay(LocalServer):
    """The process; a context manager.

    :param targets: URLs of servers by name.
    :param delay: what each request waits, s; 0 only counts.
    """

    name = "delayed-way"

    def __init__(self, targets: dict[str, str], delay: float, directory: Path | None = None) -> None:
        super().__init__(directory)
        self._targets = targets
        self._delay = delay
        self.urls: dict[str, str] = {}

    def launch(self) -> None:
        """Start the process, without waiting for it."""
        targets = [f"{name}={url}" for name, url in self._targets.items()]
        command = [sys.executable, "-m", "benchmarks.delayed_way", "--delay", str(self._delay), *targets]
        self._child = ChildProcess(self.name, command, directory=self.directory)
        self._child.start()

    def wait_ready(self) -> None:
        """Wait until it says where it serves."""
        if self._child is not None:
            self._child.wait_ready(self._has_said_urls, within=START_SECONDS)

    def _has_said_urls(self) -> bool:
        _, said, urls = ("" if self._child is None else self._child.log_text()).partition("ready ")
        if not urls.endswith("\n"):
            return False
        self.urls = json.loads(urls)
        return bool(said)

    def requests(self) -> dict[str, int]:
        """How many requests have come by so far, by the names of the servers."""
        with build_opener(ProxyHandler({})).open(self.urls["counts"]) as answer:
            return dict(json.load(answer))


class _Way:
    """The way to one server."""

    def __init__(self, url: str, delay: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._delay = delay
        self.requests = 0

    async def carry(self, caller: asyncio.StreamReader, to_caller: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        server, to_server = await asyncio.open_connection(self._host, self._port, limit=_PIECE)
        connection = _Connection(self)
        pumps = [
            asyncio.create_task(connection.ask(caller, to_server)),
            asyncio.create_task(connection.answer(server, to_caller)),
        ]
        _, pending = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pending:
            pump.cancel()
        for writer in (to_server, to_caller):
            writer.close()

    async def hold_back(self) -> None:
        """Count a request, and have it wait."""
        self.requests += 1
        await asyncio.sleep(self._delay)


class _Connection:
    """Tells requests apart: bytes of a caller after an answer are the next one, for nobody sends two at once."""

    def __init__(self, way: _Way) -> None:
        self._way = way
        self._asked = False

    async def ask(self, caller: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await caller.read(_PIECE):
                if not self._asked:
                    self._asked = True
                    await self._way.hold_back()
                to_server.write(piece)
                await to_server.drain()

    async def answer(self, server: asyncio.StreamReader, to_caller: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await server.read(_PIECE):
                # "100 Continue" alone asks for the rest of the same request.
                self._asked = piece.startswith(_GO_ON) and piece.endswith(_END) and piece.count(_END) == 1
                to_caller.write(piece)
                await to_caller.drain()


async def _serve(targets: dict[str, str], delay: float) -> None:
    ways = {name: _Way(url, delay) for name, url in targets.items()}

    async def tell(_: asyncio.StreamReader, to_caller: asyncio.StreamWriter) -> None:
        counts = json.dumps({name: way.requests for name, way in ways.items()}).encode()
        to_caller.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(counts) + counts)
        await to_caller.drain()
        to_caller.close()

    servers = {name: await _listen(way.carry) for name, way in ways.items()}
    servers["counts"] = await _listen(tell)
    print("ready", json.dumps({name: _url(server) for name, server in servers.items()}), flush=True)
    await asyncio.Event().wait()


async def _listen(serve: Any) -> asyncio.Server:
    return await asyncio.start_server(serve, LOOPBACK, 0, limit=_PIECE, backlog=1024)


def _url(server: asyncio.Server) -> str:
    return f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"


@click.command()
@click.option("--delay", type=click.FloatRange(0), default=0.0, help="What each request waits, s.")
@click.argument("targets", nargs=-1, required=True, metavar="NAME=URL...")
def command(delay: float, targets: tuple[str, ...]) -> None:
    """Carry requests until it is stopped."""
    pairs = (target.partition("=") for target in targets)
    asyncio.run(_serve({name: url for name, _, url in pairs}, delay))


if __name__ == "__main__":
    command()
