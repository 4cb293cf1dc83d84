"""A way to an S3 server that refuses, as AWS does, requests for buckets of another account; it keeps what it saw."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.waiting import PATIENCE

OWNER = "x-amz-expected-bucket-owner"
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_OF_A_HOP = ("connection", "transfer-encoding", "keep-alive", "content-length")


@dataclass(frozen=True)
class Seen:
    """A request: its method, the bucket, what follows, and its headers in lower case."""

    method: str
    bucket: str
    rest: str
    headers: Mapping[str, str]

    @property
    def signed(self) -> str:
        """The names of the headers that its signature covers."""
        return self.headers.get("authorization", "")

    @property
    def begins_an_object(self) -> bool:
        """Whether it is one that says how an object is stored: a part of an upload is not."""
        return (self.method == "PUT" and "uploadId=" not in self.rest) or (
            self.method == "POST" and "uploads" in self.rest
        )


class OwnedWay:
    """Hands on requests to the server; a context manager.

    :param target: the server's URL.
    :param owners: the account that owns each bucket.
    :ivar seen: each request, in order.
    """

    def __init__(self, target: str, owners: Mapping[str, str]) -> None:
        self._target = str(urlsplit(target).netloc)
        self._owners = owners
        self.seen: list[Seen] = []
        way = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __getattr__(self, name: str) -> Callable[[], None]:
                if name.startswith("do_"):
                    return lambda: way.hand_on(self)
                raise AttributeError(name)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def hand_on(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", 0)))
        bucket, _, rest = handler.path.lstrip("/").replace("?", "/?", 1).partition("/")
        self.seen.append(Seen(handler.command, bucket, rest, headers))
        if headers.get(OWNER, self._owners.get(bucket)) != self._owners.get(bucket):
            status, answered, content = 403, {}, b"" if handler.command == "HEAD" else _DENIED
        else:
            status, answered, content = self._ask(handler, headers, body)
        handler.send_response(status)
        for name, value in answered.items():
            handler.send_header(name, value)
        if "Content-Length" not in answered:
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _ask(
        self, handler: BaseHTTPRequestHandler, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self._target, timeout=PATIENCE)
        try:
            # With the host as the client wrote it: its signature covers it.
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OF_A_HOP}
            if handler.command == "HEAD":
                kept["Content-Length"] = answer.getheader("Content-Length", "0")
            return answer.status, kept, content
        finally:
            connection.close()
