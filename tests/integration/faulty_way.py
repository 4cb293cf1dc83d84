"""A way to S3, or to another HTTP server, on which requests and answers come to harm while a test runs."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.waiting import PATIENCE

_HEAD_BYTES = 1 << 20
_PIECE = 1 << 20
_LISTED = re.compile(rb"<Contents>.*?<LastModified>([^<]*)</LastModified>.*?</Contents>", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """What a request asks for.

    :ivar verb: its method; ``LIST`` for a listing and ``DELETE`` for the deletion of many objects, too.
    :ivar key: the path, without escapes; with the prefix of a listing.
    """

    verb: str
    key: str


@dataclass
class Answer:
    """An answer, as it goes to the client.

    :ivar head: status line and headers.
    :ivar size: how many bytes of it are sent, the head included; None for all.
    :ivar resets: whether what ends early ends with a reset, rather than in good order.
    """

    head: bytes
    body: bytes
    size: int | None = None
    resets: bool = False

    def with_body(self, body: bytes) -> Answer:
        """The same with another body, and with a length that fits."""
        lines = [line for line in self.head.split(b"\r\n") if not _is_about_length(line)]
        head = b"\r\n".join([*lines[:-2], b"Content-Length: %d" % len(body), b"", b""])
        return replace(self, head=head, body=body)


@dataclass
class Fault:
    """Something that goes wrong, with which requests and how often.

    :ivar before: makes the answer, so that the server never sees the request; None for a fault of the answer.
    :ivar after: what becomes of the server's answer.
    :ivar slow: s that a request waits.
    :ivar resets: whether the connection is reset instead of an answer, the request unseen.
    :ivar verbs: with which kinds of :class:`Request`; empty for all.
    :ivar key: a pattern that is looked for in the key.
    :ivar rate: with which fraction of them, at random.
    :ivar times: how often at most; None for ever.
    :ivar done: how often it has happened.
    """

    before: Callable[[], Answer] | None = None
    after: Callable[[Answer], Answer] | None = None
    slow: float = 0.0
    resets: bool = False
    verbs: tuple[str, ...] = ()
    key: str = ""
    rate: float = 1.0
    times: int | None = None
    done: int = 0
    dice: random.Random = field(default_factory=random.Random)

    def happens_to(self, request: Request) -> bool:
        """Decide, and count."""
        due = (
            (self.times is None or self.done < self.times)
            and (not self.verbs or request.verb in self.verbs)
            and re.search(self.key, request.key) is not None
            and self.dice.random() < self.rate
        )
        self.done += due
        return due


def refuse(status: int, code: str, message: str = "made up by a test") -> Fault:
    """An error as S3 writes it, such as ``503, "SlowDown"``."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Fault(before=lambda: Answer(f"HTTP/1.1 {status} {code}\r\n\r\n".encode(), b"").with_body(body.encode()))


def internal_error() -> Fault:
    """500."""
    return refuse(500, "InternalError", "We encountered an internal error. Please try again.")


def slow_down() -> Fault:
    """503, as S3 throttles."""
    return refuse(503, "SlowDown", "Please reduce your request rate.")


def access_denied() -> Fault:
    """403."""
    return refuse(403, "AccessDenied", "Access Denied")


def reset() -> Fault:
    """The connection is reset before the server has seen the request."""
    return Fault(resets=True)


def reset_answer() -> Fault:
    """The request is done, and the connection reset in the middle of the answer."""
    return Fault(after=lambda answer: replace(answer, size=(len(answer.head) + len(answer.body)) // 2, resets=True))


def torn() -> Fault:
    """The body ends half way, and with it the connection: the length given is that of the whole."""
    return Fault(after=lambda answer: replace(answer, size=len(answer.head) + len(answer.body) // 2))


def truncated(share: float = 0.5) -> Fault:
    """The body ends early, and the length given fits: only who knows better can tell."""

    def shortened(answer: Answer) -> Answer:
        return answer.with_body(answer.body[: int(len(answer.body) * share)]) if answer.body else answer

    return Fault(after=shortened)


def slow(seconds: float) -> Fault:
    """A request waits before it is handed on."""
    return Fault(slow=seconds)


def late(seconds: float) -> Fault:
    """A listing does not show objects that are younger than so many seconds."""

    def without_the_young(answer: Answer) -> Answer:
        shown = datetime.now(UTC) - timedelta(seconds=seconds)
        body = _LISTED.sub(lambda found: b"" if _moment(found[1]) > shown else found[0], answer.body)
        return answer.with_body(body)

    return replace(Fault(after=without_the_young), verbs=("LIST",))


class FaultyWay:
    """Hands HTTP requests on as they come, but for the faults it is told to show; a context manager.

    :param target: the server's URL.
    :ivar url: where to reach it by this way.
    :ivar delay: s that each piece of a request waits, from now on: its head, and each megabyte of its body. What
        waits already goes on when it is set to less.
    :ivar sent: bytes of requests that were handed on.
    :ivar waiting: how many requests wait now, because of the delay.
    :ivar faults: what goes wrong; the first that happens to a request is all that does.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self.url = ""
        self.delay = 0.0
        self.sent = 0
        self.waiting = 0
        self.faults: list[Fault] = []
        self._loop = asyncio.new_event_loop()
        self._serving = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def shows(self, fault: Fault, *verbs: str, key: str = "", rate: float = 1.0, times: int | None = None) -> Fault:
        """Have a fault happen from now on; answers with it, so that it can be counted, or ended by ``times = 0``."""
        dice = random.Random(len(self.faults))
        told = replace(fault, verbs=verbs or fault.verbs, key=key, rate=rate, times=times, dice=dice)
        self.faults.append(told)
        return told

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
        server = self._loop.run_until_complete(
            asyncio.start_server(self._connect, "127.0.0.1", 0, limit=_HEAD_BYTES, backlog=1000)
        )
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._serving.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(*self._target, limit=_HEAD_BYTES)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._hand_on(reader, requests, answers, writer):
                    pass
        finally:
            requests.close()
            writer.close()

    async def _wait(self) -> None:
        began = self._loop.time()
        while (left := began + self.delay - self._loop.time()) > 0:
            await asyncio.sleep(min(left, 0.05))

    async def _pass(self, piece: bytes, requests: asyncio.StreamWriter) -> None:
        self.waiting += self.delay > 0
        await self._wait()
        self.waiting = max(0, self.waiting - 1)
        self.sent += len(piece)
        requests.write(piece)
        await requests.drain()

    async def _hand_on(
        self,
        reader: asyncio.StreamReader,
        requests: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; says whether the connection is good for another."""
        head = await reader.readuntil(b"\r\n\r\n")
        request = _request(head)
        fault = next((fault for fault in self.faults if fault.happens_to(request)), Fault())
        await asyncio.sleep(fault.slow)
        if fault.resets:
            return _reset(writer)
        if b"expect" in _headers(head):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault.before is not None:
            await self._wait()
            async for _ in _body(head, reader):
                pass
            answer = fault.before()
            return await _send(replace(answer, body=b"") if request.verb == "HEAD" else answer, writer)
        await self._pass(head, requests)
        async for piece in _body(head, reader):
            await self._pass(piece, requests)
        answer = await _read_answer(answers, request.verb)
        return await _send(fault.after(answer) if fault.after else answer, writer)


def _request(head: bytes) -> Request:
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    parts = urlsplit(rest.rpartition(" ")[0])
    query = parse_qs(parts.query, keep_blank_values=True)
    if method == "GET" and ("list-type" in query or "uploads" in query):
        method = "LIST"
    elif method == "POST" and "delete" in query:
        method = "DELETE"
    prefix = f"/{query['prefix'][0]}" if method == "LIST" and "prefix" in query else ""
    return Request(method, unquote(parts.path) + prefix)


def _headers(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:] if line)
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _is_about_length(line: bytes) -> bool:
    return line.lower().startswith((b"content-length:", b"transfer-encoding:"))


def _moment(text: bytes) -> datetime:
    return datetime.fromisoformat(text.decode().replace("Z", "+00:00"))


async def _body(head: bytes, source: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The body of a request in pieces, as it comes."""
    headers = _headers(head)
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        async for chunk in _chunks(source, whole=True):
            yield chunk
        return
    left = int(headers.get(b"content-length", b"0"))
    while left:
        piece = await source.read(min(left, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


async def _read_answer(source: asyncio.StreamReader, verb: str) -> Answer:
    head = await source.readuntil(b"\r\n\r\n")
    headers, status = _headers(head), int(head.split(b" ", 2)[1])
    if status == 100:
        return await _read_answer(source, verb)
    if verb == "HEAD" or status in (204, 304):
        return Answer(head, b"")
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = b"".join([piece async for piece in _chunks(source, whole=False)])
        return Answer(head, b"").with_body(body)
    return Answer(head, await source.readexactly(int(headers.get(b"content-length", b"0"))))


async def _chunks(source: asyncio.StreamReader, *, whole: bool) -> AsyncIterator[bytes]:
    """The chunks of a body; ``whole``: with what stands around them, as they came."""
    while True:
        line = await source.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        chunk = await source.readexactly(size + 2) if size else b""
        if not size:
            while (trailer := await source.readuntil(b"\r\n")) != b"\r\n":
                chunk += trailer
            chunk += b"\r\n"
        yield line + chunk if whole else chunk[:-2]
        if not size:
            return


async def _send(answer: Answer, writer: asyncio.StreamWriter) -> bool:
    writer.write((answer.head + answer.body)[: answer.size])
    await writer.drain()
    return _reset(writer) if answer.resets else answer.size is None


def _reset(writer: asyncio.StreamWriter) -> bool:
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
