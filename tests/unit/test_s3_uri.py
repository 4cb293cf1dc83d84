"""Buckets and keys as they are written."""

from __future__ import annotations

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.s3 import S3Manager, S3OperationError, S3Uri

buckets = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", fullmatch=True)


@given(buckets, st.text())
def test_a_uri_reads_back_as_it_was_written(bucket: str, key: str) -> None:
    uri = S3Uri(bucket, key)
    assert S3Uri.parse(str(uri)) == uri


@given(buckets, st.text())
def test_parent_and_name_make_up_the_key(bucket: str, key: str) -> None:
    uri = S3Uri(bucket, key)
    assert uri.key in (f"{uri.parent.key}/{uri.name}", uri.name)
    assert uri.parent.bucket == bucket
    assert "/" not in uri.name


def test_a_bucket_alone_is_everything_in_it() -> None:
    assert S3Uri.parse("s3://bucket") == S3Uri.parse("s3://bucket/") == S3Uri("bucket", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3://",
        "s3:///key",
        "s3:/bucket/key",
        "S3://bucket/key",
        "https://bucket/key",
        "bucket/key",
        "s3://Bucket/key",
        "s3://ab/key",
        "s3://bucket_/key",
        "s3://-bucket/key",
        "s3://bucket?key",
        "s3://bucket\n/key",
        " s3://bucket/key",
        f"s3://{'b' * 64}/key",
    ],
)
def test_anything_else_is_refused_in_one_line_that_shows_it(text: str) -> None:
    with pytest.raises(ExtensionConfigurationError) as caught:
        S3Uri.parse(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["out//a.out", "out/../a.out", "./a.out"])
@pytest.mark.parametrize("call", ["get", "head"])
def test_a_key_that_cannot_be_asked_for_is_an_error_of_s3(key: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    s3 = S3Manager(boto3.Session(aws_access_key_id="id", aws_secret_access_key="key", region_name="us-east-1"))
    with pytest.raises(S3OperationError) as caught:
        getattr(s3, call)(S3Uri("outputs", key))
    assert f"s3://outputs/{key}" in str(caught.value)
