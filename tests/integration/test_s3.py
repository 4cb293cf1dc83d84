"""The one seam to S3, on a real server."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from osml_tasks.errors import ObjectNotFoundError, S3AccessError, S3OperationError
from osml_tasks.s3 import S3Manager, S3Uri
from tests.integration.fleet import INPUTS, Fleet

HERE = S3Uri(INPUTS, "s3-tests")


def under(name: str) -> S3Uri:
    return S3Uri(INPUTS, f"s3-tests/{name}")


@pytest.fixture
def s3(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Manager]:
    for name, value in fleet.env.items():
        monkeypatch.setenv(name, value)
    manager = S3Manager(boto3.Session())
    yield manager
    manager.delete(found.uri for found in manager.list(HERE))


def test_what_is_written_is_read(s3: S3Manager, tmp_path: Path) -> None:
    body = os.urandom(300_000)
    s3.put(under("bytes"), body)
    (tmp_path / "file").write_bytes(body)
    s3.put(under("file"), tmp_path / "file")
    s3.download(under("file"), tmp_path / "back")
    assert s3.get(under("bytes")) == b"".join(s3.stream(under("file"))) == (tmp_path / "back").read_bytes() == body
    assert s3.get_range(under("bytes"), 10, 20) == body[10:20]
    assert s3.get_range(under("bytes"), 10, 10) == b""
    assert s3.get_range(under("bytes"), 10, len(body) + 1000, least=5) == body[10:]
    with pytest.raises(S3OperationError, match="bytes"):
        s3.get_range(under("bytes"), 10, len(body) + 1000)


def test_a_listing_stops_at_its_directory(s3: S3Manager) -> None:
    for name in ("a/1", "a/2", "ab/1"):
        s3.put(under(name), b"x")
    assert [found.uri for found in s3.list(under("a"))] == [under("a/1"), under("a/2")]
    assert sorted(s3.folders(HERE)) == ["a", "ab"]
    assert s3.folders(under("a")) == []


def test_more_than_a_page_is_listed_and_deleted(s3: S3Manager) -> None:
    uris = [under(f"many/{number:04d}") for number in range(1203)]
    for uri in uris:
        s3.put(uri, b"")
    assert [found.uri for found in s3.list(under("many"))] == uris
    assert s3.delete([*uris, under("many/never-was")]) == []
    assert list(s3.list(HERE)) == []


def test_an_interrupted_write_leaves_nothing(s3: S3Manager, fleet: Fleet) -> None:
    for size in (10, 40_000_000):
        with pytest.raises(ZeroDivisionError), s3.writer(under(f"half-{size}")) as file:
            file.write(b"x" * size)
            raise ZeroDivisionError
    assert list(s3.list(HERE)) == []
    assert fleet.s3.list_multipart_uploads(Bucket=INPUTS).get("Uploads", []) == []


def test_an_interrupted_write_leaves_others_alone(s3: S3Manager, fleet: Fleet) -> None:
    other = fleet.s3.create_multipart_upload(Bucket=INPUTS, Key="s3-tests/out.geojsonl")
    with pytest.raises(ZeroDivisionError), s3.writer(under("out.geojson")) as file:
        file.write(b"x" * 40_000_000)
        raise ZeroDivisionError
    left = fleet.s3.list_multipart_uploads(Bucket=INPUTS).get("Uploads", [])
    assert [upload["UploadId"] for upload in left] == [other["UploadId"]]
    s3.abort_uploads(HERE)
    assert fleet.s3.list_multipart_uploads(Bucket=INPUTS).get("Uploads", []) == []


def test_a_download_that_fails_leaves_no_file(s3: S3Manager, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFoundError):
        s3.download(under("missing"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_errors_name_the_object_in_one_line(s3: S3Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ObjectNotFoundError, match=r"^GET s3://fleet-in/s3-tests/missing failed: .*$") as missing:
        s3.get(under("missing"))
    assert missing.value.uri == str(under("missing"))
    assert s3.head(under("missing")) is None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(S3AccessError, match=r"^GET \S+ was denied: SignatureDoesNotMatch: [^\n]*$"):
        S3Manager(boto3.Session()).get(under("missing"))


ODD_NAMES = [
    *(
        "a b",
        "ü ñ 船",
        "e\u0301",
        "\U0001f6a2",
        "%41%2F",
        "a+b&c=d;e@f",
        "#?x",
        'it\'s "x"',
        "*[a]{b}|<c>^`~",
    ),
    *("-dash", "two\nlines", "a\tb", "\x7f", "a\u2028b", "...", "a..b", "..a", " ", "k" * 200, "{}", "a:b,c"),
]
NO_NAMES = ["", ".", "..", "a/./b", "a//b", "../b", "/a"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_object_of_any_name_is_written_found_read_and_deleted_or_refused_by_our_error(
    s3: S3Manager, name: str
) -> None:
    uri = under(f"odd/{name}")
    try:
        s3.put(uri, b"x")
    except S3OperationError as error:
        assert str(error).isprintable()
        return
    found = s3.head(uri)
    assert found is not None
    assert found.uri == uri
    assert s3.get(uri) == s3.get_range(uri, 0, 1) == b"x"
    assert [one.uri for one in s3.list(under("odd"))] == [uri]
    assert s3.delete([uri]) == []
    assert s3.head(uri) is None


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_by_our_error(s3: S3Manager, name: str) -> None:
    uri = S3Uri(INPUTS, f"s3-tests/odd/{name}") if name != "/a" else S3Uri(INPUTS, "/a")
    calls = [lambda: s3.put(uri, b"x"), lambda: s3.get(uri), lambda: list(s3.list(uri)), lambda: s3.head(uri)]
    for call in calls:
        try:
            call()
        except S3OperationError as error:
            assert str(error).isprintable()
    s3.delete([uri])


def test_a_stream_is_uploaded_in_pieces(s3: S3Manager) -> None:
    body = os.urandom(9_000_001)
    assert s3.upload(under("stream"), io.BytesIO(body)) == len(body)
    assert s3.get(under("stream")) == body


def test_a_bucket_is_validated(s3: S3Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.validate_bucket(INPUTS)
    with pytest.raises(ObjectNotFoundError, match="there is no bucket 'no-such-bucket'") as missing:
        s3.validate_bucket("no-such-bucket")
    assert (missing.value.bucket, missing.value.key) == ("no-such-bucket", "")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(S3AccessError, match="allow s3:ListBucket"):
        S3Manager().validate_bucket(INPUTS)


def test_what_cannot_be_deleted_is_named_and_nothing_is_raised(s3: S3Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put(under("stays"), b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (undeleted,) = S3Manager().delete([under("stays")])
    assert (undeleted.uri, "SignatureDoesNotMatch" in undeleted.error) == (under("stays"), True)
    assert s3.head(under("stays")) is not None
