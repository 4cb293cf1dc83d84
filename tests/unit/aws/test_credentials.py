"""Credentials that another program writes into a file, and those whose end is near."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.credentials import RefreshableCredentials

from osml_tasks.aws.credentials import SessionCredentials
from osml_tasks.errors import CredentialsExpiredError, ExtensionConfigurationError


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "there")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    write(path, "first")
    return path


def write(path: Path, key: str) -> None:
    lines = f"aws_access_key_id = {key}\naws_secret_access_key = s\naws_session_token = of-{key}\n"
    path.write_text(f"[there]\n{lines}")


def test_a_file_that_has_changed_is_read_again_for_all_clients_of_the_session(file: Path) -> None:
    session = boto3.Session()
    credentials, beside = SessionCredentials(session), SessionCredentials(session)
    assert credentials.frozen().access_key == "first"
    write(file, "second")
    assert (credentials.frozen().access_key, credentials.frozen().token) == ("second", "of-second")
    of_clients: Any = session.get_credentials()
    assert of_clients.access_key == beside.frozen().access_key == "second"


def test_a_file_that_changed_before_anybody_looked_is_read_too(file: Path) -> None:
    session = boto3.Session()
    assert session.get_credentials() is not None
    write(file, "second")
    assert SessionCredentials(session).frozen().access_key == "second"


@pytest.mark.parametrize("content", [None, "", "[there]\naws_access_key_id = torn\n", "[another]\n"])
def test_a_file_that_is_being_written_changes_nothing(file: Path, content: str | None) -> None:
    credentials = SessionCredentials(boto3.Session())
    assert credentials.frozen().access_key == "first"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    assert credentials.frozen().access_key == "first"
    write(file, "third")
    assert credentials.frozen().access_key == "third"


def test_a_session_without_any_is_said_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_PROFILE")
    with pytest.raises(ExtensionConfigurationError, match=r"^no AWS credentials found: set AWS_PROFILE"):
        SessionCredentials(boto3.Session())


def lasting(seconds: float, fetched: list[str]) -> boto3.Session:
    """A session whose credentials expire after so many seconds."""

    def fetch() -> dict[str, str]:
        fetched.append(f"key-{len(fetched)}")
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        return {"access_key": fetched[-1], "secret_key": "s", "token": "t", "expiry_time": until.isoformat()}

    core = botocore.session.Session()
    core._credentials = RefreshableCredentials.create_from_metadata(fetch(), fetch, "custom-process")
    return boto3.Session(botocore_session=core, region_name="us-west-2")


@pytest.mark.parametrize(("seconds", "is_kept"), [(20, False), (7200, True)])
def test_obstore_keeps_only_what_is_good_for_long(seconds: float, is_kept: bool) -> None:
    credentials = SessionCredentials(lasting(seconds, []))
    until = credentials()["expires_at"]
    assert until is not None
    assert (until > datetime.now(UTC) + timedelta(seconds=30)) is is_kept


def test_what_is_renewed_and_still_expired_is_said_in_one_line() -> None:
    credentials = SessionCredentials(lasting(-5, []))
    with pytest.raises(CredentialsExpiredError, match=r"^the AWS credentials have expired.*still expired.*renew them"):
        credentials.frozen()
