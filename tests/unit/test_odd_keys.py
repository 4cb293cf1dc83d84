"""Listings with keys that nobody here would write."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape

import boto3
import pytest

from osml_tasks.s3 import S3Manager, S3Uri

KEYS: list[str] = []
_HEAD = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'


class _Bucket(BaseHTTPRequestHandler):
    """Lists :data:`KEYS` as S3 does, two at a time."""

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        after = asked.get("continuation-token", asked.get("start-after", ""))
        left = [key for key in sorted(KEYS) if key.startswith(asked["prefix"]) and key > after]
        encoded = "encoding-type" in asked

        def written(key: str) -> str:
            return quote(key, safe="/") if encoded else escape(key)

        if "delimiter" in asked:
            folders = {asked["prefix"] + key.removeprefix(asked["prefix"]).partition("/")[0] + "/" for key in left}
            inner = "".join(f"<CommonPrefixes><Prefix>{written(one)}</Prefix></CommonPrefixes>" for one in folders)
            more = False
        else:
            more, left = len(left) > 2, left[:2]
            inner = "".join(
                f"<Contents><Key>{written(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                "<ETag>e</ETag><Size>1</Size></Contents>"
                for key in left
            )
        inner += "<EncodingType>url</EncodingType>" if encoded else ""
        inner += f"<NextContinuationToken>{written(left[-1])}</NextContinuationToken>" if more else ""
        prefix, truncated = written(asked["prefix"]), str(more).lower()
        about = f"<Name>b</Name><Prefix>{prefix}</Prefix><KeyCount>1</KeyCount><IsTruncated>{truncated}</IsTruncated>"
        body = f"{_HEAD}{about}{inner}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Manager]:
    with HTTPServer(("127.0.0.1", 0), _Bucket) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        yield S3Manager(boto3.Session("a", "b", region_name="us-east-1"), sleep=lambda seconds: None)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("odd", ["in/./x", "in/../x", "in/a//b", "in//a", "in/a\x01b", "in/a\x7fb"])
def test_a_foreign_key_is_left_out_and_stops_nothing(s3: S3Manager, odd: str) -> None:
    own = [f"in/{name}" for name in "09AZaz"]
    KEYS[:] = [*own, odd]
    assert [found.uri.key for found in s3.list(S3Uri("bucket", "in"))] == sorted(own)


@pytest.mark.parametrize("odd", ["in/./x", "in//a", "in/a\x01b/c"])
def test_folders_are_found_beside_it(s3: S3Manager, odd: str) -> None:
    KEYS[:] = ["in/one/a", "in/two/b", odd]
    assert sorted(s3.folders(S3Uri("bucket", "in"))) == ["one", "two"]
