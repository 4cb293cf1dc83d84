"""The short way of an invocation against boto3's own, on a real HTTP server that remembers what it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, ParamValidationError, ProxyConnectionError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osml_tasks.errors import AnswerLostError, ExtensionConfigurationError
from osml_tasks.runtime import Runtime, runtime_client

KEY, SECRET, TOKEN = "AKIDEXAMPLE", "a-secret", "a-token"
MEMBERS: dict[str, Any] = {
    "EndpointName": "ships",
    "ContentType": "image/png",
    "InferenceId": "job-00000000-1",
    "S3OutputPathExtension": "job/00000",
    "Filename": "00000000-1.out",
    "RequestTTLSeconds": 3600,
    "InvocationTimeoutSeconds": 900,
    "CustomAttributes": "trace=1, more=two",
}
SOURCES: list[dict[str, Any]] = [
    {"Body": b"\x00\xff" * 2000},
    {"Body": b""},
    {"InputLocation": "s3://inputs/a folder/tile~1+2.png"},
]
ACCEPTED = {
    "X-Amzn-SageMaker-OutputLocation": "s3://outputs/o/job/00000/00000000-1.out",
    "X-Amzn-SageMaker-FailureLocation": "s3://outputs/f/job/00000/00000000-1.out",
}
ANSWER = dict(zip(("OutputLocation", "FailureLocation"), ACCEPTED.values(), strict=True))


@dataclass
class Endpoint:
    """A server that answers as it is told and remembers what it is sent.

    :ivar answers: status, headers and body for the next requests, one each; afterwards it accepts.
    :ivar cut: how many bytes of its answers it sends before it closes the connection; None for all.
    :ivar hang_up: whether it closes each connection after its answer, without a word.
    """

    url: str = ""
    hang_up: bool = False
    cut: int | None = None
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)


@contextmanager
def serving() -> Iterator[Endpoint]:
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            endpoint.connections.add(self.client_address)
            endpoint.requests.append((self.path, dict(self.headers.items()), body))
            status, headers, text = endpoint.answers.pop(0) if endpoint.answers else (202, ACCEPTED, b"{}")
            whole, self.wfile = self.wfile, BytesIO()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            answer, self.wfile = self.wfile.getvalue(), whole
            self.wfile.write(answer if endpoint.cut is None else answer[: endpoint.cut])
            self.close_connection = self.close_connection or endpoint.cut is not None
            self.close_connection = self.close_connection or endpoint.hang_up

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as endpoint:
        yield endpoint


def opened(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, **variables: str) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return runtime_client(a_session(), 4)


def a_session() -> boto3.Session:
    return boto3.Session(
        aws_access_key_id=KEY, aws_secret_access_key=SECRET, aws_session_token=TOKEN, region_name="eu-west-1"
    )


@pytest.mark.parametrize("source", SOURCES, ids="-".join)
def test_what_is_sent_and_answered_is_what_boto3_sends_and_answers(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, source: dict[str, Any]
) -> None:
    short = opened(endpoint, monkeypatch)
    assert isinstance(short, Runtime)
    assert short.invoke_endpoint_async(**MEMBERS, **source) == ANSWER
    long = a_session().client("sagemaker-runtime")
    answer = long.invoke_endpoint_async(**MEMBERS, **source)
    assert {name: answer[name] for name in ANSWER} == ANSWER
    (path, headers, body), (their_path, their_headers, their_body) = endpoint.requests
    assert (path, body) == (their_path, their_body)
    names = {name.lower() for name in their_headers if name.lower().startswith("x-amz")}
    told, theirs = lowered(headers), lowered(their_headers)
    del theirs["x-amz-date"]
    assert names <= told.keys()
    assert {name: told[name] for name in names & theirs.keys()} == {
        name: theirs[name] for name in names & theirs.keys()
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    endpoint_name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    body=st.binary(max_size=50),
)
def test_any_request_is_signed_so_that_the_server_can_check_it(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, endpoint_name: str, text: str, body: bytes
) -> None:
    client = opened(endpoint, monkeypatch)
    assert client.invoke_endpoint_async(EndpointName=endpoint_name, CustomAttributes=text, Body=body) == ANSWER
    path, headers, sent = endpoint.requests[-1]
    assert signature(f"{endpoint.url}{path}", lowered(headers), sent) in lowered(headers)["authorization"]


def signature(url: str, headers: dict[str, str], body: bytes) -> str:
    """What a server makes of a request, with the caller's secret."""
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    request = AWSRequest("POST", url, {name: headers[name] for name in signed}, body)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials(KEY, SECRET, TOKEN), "sagemaker", "eu-west-1")
    return str(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))


def lowered(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def test_connections_are_kept(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(endpoint, monkeypatch)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: client.invoke_endpoint_async(**MEMBERS, Body=b"tile"), range(60)))
    assert answers == [ANSWER] * 60
    assert (len(endpoint.requests), len(endpoint.connections) <= 3) == (60, True)


def test_a_connection_that_the_server_has_closed_costs_nothing_but_another(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = opened(endpoint, monkeypatch)
    endpoint.hang_up = True
    for _ in range(5):
        answer = client.invoke_endpoint_async(**MEMBERS, Body=b"tile")
        assert {name: answer[name] for name in ANSWER} == ANSWER
    assert len(endpoint.requests) == 5


def test_what_is_accepted_with_another_status_is_not_invoked_again(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.answers = [(200, ACCEPTED, b"{}")]
    assert opened(endpoint, monkeypatch).invoke_endpoint_async(**MEMBERS, Body=b"tile") == ANSWER
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("cut", [0, 10, 60, 200])
def test_an_answer_that_is_lost_is_said_to_whoever_can_look(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
    endpoint.cut = cut
    with pytest.raises(AnswerLostError, match="the answer to an invocation is lost"):
        runtime_client(a_session(), 4, says_lost=True).invoke_endpoint_async(**MEMBERS, Body=b"tile")
    assert len(endpoint.requests) == 1


def test_an_answer_whose_headers_came_whole_is_one(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint.answers = [(202, ACCEPTED, b"{" + b" " * 10_000 + b"}")]
    endpoint.cut = 1000
    assert opened(endpoint, monkeypatch).invoke_endpoint_async(**MEMBERS, Body=b"tile") == ANSWER
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("status", [500, 503])
def test_what_may_pass_is_tried_again_as_boto3_does(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    endpoint.answers = [(status, {"x-amzn-ErrorType": "ServiceUnavailable"}, b"{}")] * 2
    answer = opened(endpoint, monkeypatch).invoke_endpoint_async(**MEMBERS, Body=b"tile")
    assert {name: answer[name] for name in ANSWER} == ANSWER
    assert len(endpoint.requests) == 3


def test_a_refusal_is_boto3s_error(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = (400, {"x-amzn-ErrorType": "ValidationError"}, b'{"message": "Endpoint ships of account 1 not found."}')
    endpoint.answers = [refusal] * 2
    with pytest.raises(ClientError, match=r"ValidationError.*ships of account 1 not found") as caught:
        opened(endpoint, monkeypatch).invoke_endpoint_async(**MEMBERS, Body=b"tile")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_what_is_no_member_is_boto3s_error(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParamValidationError, match="Nonsense"):
        opened(endpoint, monkeypatch).invoke_endpoint_async(**MEMBERS, Nonsense="x")
    assert endpoint.requests == []


def test_a_proxy_is_left_to_boto3(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(endpoint, monkeypatch, HTTP_PROXY="http://127.0.0.1:1", NO_PROXY="")
    with pytest.raises(ProxyConnectionError):
        client.invoke_endpoint_async(**MEMBERS, Body=b"tile")
    client = opened(endpoint, monkeypatch, NO_PROXY="127.0.0.1", ALL_PROXY="http://127.0.0.1:1")
    assert client.invoke_endpoint_async(**MEMBERS, Body=b"tile") == ANSWER


def test_nobody_there_is_boto3s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as endpoint:
        client = opened(endpoint, monkeypatch)
    with pytest.raises(Exception, match="Could not connect to the endpoint URL"):
        client.invoke_endpoint_async(**MEMBERS, Body=b"tile")


def test_certificates_that_cannot_be_read_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(ExtensionConfigurationError, match=r"^AWS_CA_BUNDLE is '/nowhere/ca\.pem'"):
        runtime_client(a_session(), 4)


@pytest.mark.parametrize("switch", ["AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "NONE"])
@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1", "us-gov-west-1", "cn-north-1", "us-iso-east-1"])
def test_the_address_is_that_of_boto3(monkeypatch: pytest.MonkeyPatch, region: str, switch: str) -> None:
    if (region, switch) == ("us-iso-east-1", "AWS_USE_DUALSTACK_ENDPOINT"):
        pytest.skip("there is none")
    monkeypatch.setenv(switch, "true")
    session = boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name=region)
    long = session.client("sagemaker-runtime")
    url = long.generate_presigned_url("invoke_endpoint_async", {"EndpointName": "ships", "Body": b""})
    short = runtime_client(session, 4)
    assert isinstance(short, Runtime)
    assert url.partition("?")[0] == f"{short.address.url}/endpoints/ships/async-invocations"
    assert f"%2F{short.address.region}%2Fsagemaker%2F" in url
