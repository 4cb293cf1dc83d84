"""Encryption of what is written and the account that must own a bucket: with each request, by configuration alone."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from osml_tasks.child_process import ChildProcess
from osml_tasks.errors import S3AccessError
from osml_tasks.local.server import free_port
from osml_tasks.s3 import S3Manager, S3Uri
from osml_tasks.s3_settings import S3Settings
from tests.integration.crew import ALL, Crew
from tests.integration.endpoints import OUTPUTS
from tests.integration.fleet import INPUTS, Fleet, clean_environment, names, wait_until, write_tiles
from tests.integration.owned_way import OWNER, OwnedWay

OURS, THEIRS, NOBODYS = "111122223333", "444455556666", "999999999999"
OWNERS = {"ASYNC_SM_EXPECTED_BUCKET_OWNER": OURS, "ASYNC_SM_EXPECTED_OUTPUT_BUCKET_OWNER": THEIRS}
KEY = f"arn:aws:kms:us-east-1:{OURS}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ENCRYPTION, KMS_KEY = "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"


@pytest.fixture
def way(fleet: Fleet) -> Iterator[OwnedWay]:
    with OwnedWay(fleet.env["AWS_ENDPOINT_URL_S3"], {INPUTS: OURS, OUTPUTS: THEIRS}) as running:
        yield running


def write_each_way(s3: S3Manager, prefix: S3Uri, large: bytes) -> list[S3Uri]:
    """Objects written at once, in parts, from a stream and piece by piece."""
    uris = [prefix.child(name) for name in ("small", "large", "stream", "pieces")]
    s3.put(uris[0], b"x")
    s3.put(uris[1], large)
    s3.upload(uris[2], io.BytesIO(large))
    with s3.writer(uris[3]) as file:
        for _ in range(5):
            file.write(large[: len(large) // 4])
    return uris


def test_a_job_encrypts_what_it_writes_and_names_the_owner_in_every_request(
    workers: Crew, way: OwnedWay, tmp_path: Path
) -> None:
    there = {"AWS_ENDPOINT_URL_S3": way.url, "ASYNC_SM_S3_SSE": "AES256", **OWNERS}
    workers.start("all", ALL, 2, **there)
    # One is uploaded in parts by the client, one fails once, and none goes inline.
    tiles = write_tiles(tmp_path / "tiles", {"a": {"padding": "x" * 12_000_000}, "b": {"fail_first": 1}, "c": {}})
    outcome = workers.fleet.detect(
        tiles, "-e", "scripted", folder=tmp_path, ASYNC_SM_INLINE_PAYLOAD_MAX_BYTES="0", **there
    )
    assert (outcome.status, names(outcome.features)) == (0, ["a", "b", "c"]), outcome.err
    checked = workers.fleet.run("check", "-e", "scripted", **there)
    assert (checked.returncode, way.seen[-1].method) == (0, "GET"), checked.stdout
    expected = {INPUTS: OURS, OUTPUTS: THEIRS}
    assert {seen.bucket for seen in way.seen} == set(expected)
    assert {seen.method for seen in way.seen} == {"GET", "HEAD", "PUT", "POST"}
    assert [seen for seen in way.seen if seen.headers.get(OWNER) != expected[seen.bucket]] == []
    begun = [seen for seen in way.seen if seen.begins_an_object]
    assert len(begun) > 5
    assert any(seen.rest.endswith("/probe") for seen in begun)
    assert [seen for seen in begun if seen.headers.get(ENCRYPTION) != "AES256"] == []
    # S3 refuses headers of its own that the signature does not cover.
    assert [seen for seen in way.seen if OWNER not in seen.signed] == []
    assert [seen for seen in begun if ENCRYPTION not in seen.signed] == []


def test_the_server_keeps_it_encrypted_and_hands_it_out_as_it_was(here: Fleet, tmp_path: Path) -> None:
    s3, prefix = S3Manager(settings=S3Settings("AES256")), S3Uri(INPUTS, "encrypted")
    large = b"0123456789abcdef" * 1_500_000
    uris = write_each_way(s3, prefix, large)
    for uri in uris:
        assert here.s3.head_object(Bucket=uri.bucket, Key=uri.key)["ServerSideEncryption"] == "AES256", uri
    assert s3.get(uris[1]) == s3.get(uris[2]) == large
    assert s3.get_range(uris[1], 20_000_001, 20_000_005) == large[20_000_001:20_000_005]
    assert s3.delete(uris) == []


@pytest.mark.parametrize("variable", OWNERS)
def test_a_bucket_of_another_account_is_refused_in_one_line(
    workers: Crew, way: OwnedWay, tmp_path: Path, variable: str
) -> None:
    tiles = write_tiles(tmp_path / "tiles", {"a": {}})
    wrong = {"AWS_ENDPOINT_URL_S3": way.url, **OWNERS, variable: NOBODYS}
    bucket = INPUTS if variable == "ASYNC_SM_EXPECTED_BUCKET_OWNER" else OUTPUTS
    line = (
        f"bucket {bucket!r} refuses access: allow s3:ListBucket on it, "
        f"or correct ASYNC_SM_EXPECTED_BUCKET_OWNER if {NOBODYS} does not own it"
    )
    checked = workers.fleet.run("check", **wrong)
    (failed,) = [said for said in checked.stdout.splitlines() if said.startswith(f"FAIL  bucket {bucket}")]
    assert (checked.returncode, line in failed) == (2, True), checked.stdout
    workers.start("all", ALL, 1)
    outcome = workers.fleet.detect(tiles, "-e", "scripted", folder=tmp_path, **wrong)
    assert (outcome.status, len(outcome.err.splitlines()), line in outcome.err) == (2, 1, True), outcome.err
    assert not [seen for seen in way.seen if seen.method == "PUT"]


def test_any_request_to_a_bucket_of_another_account_is_refused(
    here: Fleet, way: OwnedWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", way.url)
    s3, uri = S3Manager(settings=S3Settings(owners={INPUTS: NOBODYS})), S3Uri(INPUTS, "owner/probe")
    for call in (lambda: s3.put(uri, b"x"), lambda: s3.get(uri), lambda: list(s3.list(uri))):
        with pytest.raises(S3AccessError, match=r"was denied: .*AccessDenied") as caught:
            call()
        assert "\n" not in str(caught.value)
    (undeleted,) = s3.delete([uri])
    assert "AccessDenied" in undeleted.error
    assert {seen.headers.get(OWNER) for seen in way.seen} == {NOBODYS}


@pytest.fixture
def kms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A boto3 client of a server that takes keys of KMS, with this process's environment leading there."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = ChildProcess(
        "moto", [sys.executable, "-m", "moto.server", "-p", str(port)], directory=tmp_path, env=clean_environment()
    )
    server.start()
    try:
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in ({"AWS_ENDPOINT_URL_S3": url} | keys).items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        wait_until(lambda: _made(client))
        yield client
    finally:
        server.stop()


def _made(client: Any) -> bool:
    try:
        return bool(client.create_bucket(Bucket=INPUTS))
    except Exception:
        return False


@pytest.mark.parametrize("encryption", ["aws:kms", "aws:kms:dsse"])
def test_a_key_of_kms_goes_with_all_that_is_written(kms: Any, encryption: str) -> None:
    with OwnedWay(kms.meta.endpoint_url, {}) as way, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", way.url)
        s3 = S3Manager(settings=S3Settings(encryption, KEY))
        for uri in write_each_way(s3, S3Uri(INPUTS, "kms"), b"x" * 24_000_000):
            found = kms.head_object(Bucket=uri.bucket, Key=uri.key)
            assert found["ServerSideEncryption"] == encryption, uri
    begun = [seen for seen in way.seen if seen.begins_an_object]
    assert {(seen.headers.get(ENCRYPTION), seen.headers.get(KMS_KEY)) for seen in begun} == {(encryption, KEY)}
    assert all(ENCRYPTION in seen.signed and KMS_KEY in seen.signed for seen in begun)
