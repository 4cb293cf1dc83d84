"""A proxy means the same to all: botocore's reading of the variables, whatever the others make of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from osml_tasks.aws.proxies import proxy_for
from osml_tasks.aws.s3_access import S3Access
from osml_tasks.imagery.gdal_s3 import S3Session
from osml_tasks.s3 import S3Manager, S3Uri

URL = "https://bucket.s3.us-west-2.amazonaws.com"
PROXY = "http://proxy.example.com:3128"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def a_session() -> boto3.Session:
    return boto3.Session("AKIDEXAMPLE", "a-secret", region_name="us-west-2")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": PROXY}, PROXY),
        ({"https_proxy": PROXY}, PROXY),
        ({"HTTPS_PROXY": "proxy.example.com:3128"}, PROXY),
        ({"HTTPS_PROXY": "http://me:secret@proxy.example.com:3128"}, "http://me:secret@proxy.example.com:3128"),
        ({"HTTP_PROXY": PROXY}, None),
        ({"ALL_PROXY": PROXY}, None),
        ({"all_proxy": PROXY}, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".amazonaws.com"}, None),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "amazonaws.com"}, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "example.com,169.254.169.254"}, PROXY),
    ],
)
def test_the_variables_are_read_as_botocore_does(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    access = S3Access(a_session())
    assert proxy_for(access.client, URL) == expected
    assert access.route("bucket").proxy == expected
    # Empty, curl looks for none.
    assert S3Session(access, "bucket").get_credential_options()["GDAL_HTTP_PROXY"] == (expected or "")


@pytest.fixture
def server() -> Iterator[str]:
    """An S3 server that has nothing."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></ListBucketResult>'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield f"127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("variables", [{"ALL_PROXY": "http://127.0.0.1:1"}, {"HTTP_PROXY": "x", "NO_PROXY": "*"}])
def test_obstore_goes_past_a_proxy_that_is_none_of_botocores(
    monkeypatch: pytest.MonkeyPatch, server: str, host: str, variables: dict[str, str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{server.replace('127.0.0.1', host)}")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert list(S3Manager(a_session()).list(S3Uri("bucket", "a/"))) == []
