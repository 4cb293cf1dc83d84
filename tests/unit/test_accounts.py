"""Sessions for other accounts: what needs no server."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.accounts import session_assuming, session_name, session_of, session_with
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import ExtensionConfigurationError, RoleRefusedError

ROLE = "arn:aws:iam::123456789012:role/detector"
MEMBERS = ("AccessKeyId", "SecretAccessKey", "SessionToken")
ANSWER = {name: f"value-of-{name}" for name in MEMBERS}


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def complaint(credentials: Any) -> str:
    with pytest.raises(ExtensionConfigurationError) as caught:
        session_with(credentials)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_hours(hours: float) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        {"Credentials": ANSWER, "AssumedRoleUser": {"Arn": ROLE}, "ResponseMetadata": {}},
        ANSWER | {"Expiration": None},
        ANSWER | {"Expiration": in_hours(1)},
        ANSWER | {"Expiration": in_hours(1).astimezone(UTC).replace(tzinfo=None)},
        ANSWER | {"Expiration": in_hours(1).isoformat()},
        ANSWER | {"Expiration": f"{in_hours(1):%Y-%m-%dT%H:%M:%SZ}"},
    ],
)
def test_what_sts_answers_makes_a_session(answer: dict[str, Any]) -> None:
    session = session_with(answer, region="eu-west-1")
    credentials = session.get_credentials()
    assert credentials is not None
    assert (credentials.access_key, credentials.secret_key, credentials.token) == tuple(ANSWER.values())
    assert session.region_name == "eu-west-1"


@pytest.mark.parametrize("missing", MEMBERS)
@pytest.mark.parametrize("instead", [{}, "", "  ", None, 5])
def test_what_is_missing_is_named_and_no_value_is(missing: str, instead: Any) -> None:
    answer = ANSWER | {missing: instead}
    if instead == {}:
        del answer[missing]
    for given_answer in (answer, {"Credentials": answer}):
        message = complaint(given_answer)
        assert missing in message
        assert "value-of" not in message


@given(st.dictionaries(st.sampled_from([*MEMBERS, "secret", "Expiration"]), st.just("hunter2"), max_size=4))
def test_no_mistake_gives_a_value_away(credentials: dict[str, str]) -> None:
    if set(MEMBERS) <= set(credentials) and "Expiration" not in credentials:
        return
    assert "hunter2" not in complaint(credentials)


@pytest.mark.parametrize(
    ("expiration", "message"),
    [
        (in_hours(-1), "expired at"),
        (in_hours(-1).replace(tzinfo=None), "expired at"),
        pytest.param(in_hours(-1).isoformat(), "expired at", id="text"),
        ("2020-01-01T00:00:00Z", "expired at 2020-01-01T00:00:00"),
        ("soon", "Expiration"),
        (17, "Expiration"),
    ],
)
def test_what_has_expired_is_refused(expiration: Any, message: str) -> None:
    assert message in complaint(ANSWER | {"Expiration": expiration})


def test_no_dictionary_is_no_answer() -> None:
    assert "Credentials" in complaint({"Credentials": "hunter2"})


@pytest.mark.parametrize("host", ["tiles-1", "ä host (of Ünits)/1", "h" * 300, ""])
def test_sts_takes_the_name_of_the_session(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{2,64}", session_name())
    assert session_name().startswith("osml-tasks-")


def test_a_configuration_without_a_role_keeps_the_session() -> None:
    config = AsyncEndpointConfig(input_bucket="tiles", output_bucket="outputs")
    session = boto3.Session(region_name="eu-west-1")
    assert session_of(config, session) is session
    assert session_of(config).get_credentials() is None


def test_a_role_is_put_over_a_session_once_and_asks_nobody_yet() -> None:
    config = AsyncEndpointConfig(input_bucket="tiles", output_bucket="outputs", assume_role_arn=ROLE)
    session = session_of(config, boto3.Session(region_name="eu-west-1"))
    assert session.region_name == "eu-west-1"
    assert session.client("s3").meta.region_name == "eu-west-1"
    assert session_of(config, session) is session
    assert session_of(config, session_assuming(f"{ROLE}-2")) is not session


def test_the_log_of_botocore_is_filtered_once() -> None:
    for _ in range(2):
        session_assuming(ROLE, session=boto3.Session(region_name="eu-west-1"))
    assert len(logging.getLogger("botocore.credentials").filters) == 1


def test_the_external_id_is_not_shown_with_the_configuration() -> None:
    config = AsyncEndpointConfig(
        input_bucket="tiles", output_bucket="outputs", assume_role_arn=ROLE, external_id="external-4711"
    )
    assert "external-4711" not in f"{config!r} {config}"


@contextmanager
def refusing_sts(code: str, message: str) -> Iterator[str]:
    """A server that gives one answer to everything, as STS words it."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        ("ExpiredToken", "The security token included in the request is expired", "renew the credentials that assume"),
        ("InvalidClientTokenId", "no such key", "correct the credentials that assume it"),
        (
            "ValidationError",
            "Value 'external-4711' at 'externalId' is\nnot allowed",
            "Value '***' at 'externalId' is not",
        ),
        ("AccessDenied", "User is not authorized", "ASYNC_SM_EXTERNAL_ID"),
    ],
)
def test_a_refusal_names_the_role_and_what_to_change(
    code: str, message: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing_sts(code, message) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        refusal = str(fetched(RoleRefusedError))
    assert refusal.startswith(f"role {ROLE} cannot be assumed: {code}: ")
    assert said in refusal
    assert "\n" not in refusal
    assert "external-4711" not in refusal


def test_an_sts_that_asks_for_patience_has_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing_sts("Throttling", "Rate exceeded") as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        assert "AssumeRole" in str(fetched(ClientError))


def fetched(error: type[Exception]) -> Exception:
    """The error that comes of asking for a role's credentials."""
    source = boto3.Session(aws_access_key_id="ours", aws_secret_access_key="ours", region_name="eu-west-1")
    credentials = session_assuming(ROLE, "external-4711", source).get_credentials()
    assert credentials is not None
    with pytest.raises(error) as caught:
        credentials.get_frozen_credentials()
    return caught.value


def test_a_profile_that_is_not_there_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(
        ExtensionConfigurationError, match=r"profile \(nobody\) could not be found: correct AWS_PROFILE"
    ):
        session_of(AsyncEndpointConfig(input_bucket="inputs", output_bucket="outputs"))
