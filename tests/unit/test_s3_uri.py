"""Buckets and keys as they are written."""

from __future__ import annotations

from unittest.mock import Mock

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.cleanup import ResourceManager
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.one_line import in_one_line
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


ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.text("s3:/abA.-_ \n%", max_size=20).map("s3://".__add__)


@given(ANY_TEXT)
def test_any_text_is_a_uri_that_prints_as_it_was_or_is_refused_in_one_line(text: str) -> None:
    try:
        uri = S3Uri.parse(text)
    except ExtensionConfigurationError as error:
        assert str(error).isprintable()
    else:
        assert str(uri) in (text, f"{text}/")
        assert S3Uri.parse(str(uri)) == uri


@given(buckets, st.text("ab./", max_size=10), st.text("ab.-", min_size=1, max_size=10))
def test_a_child_is_right_under_its_parent(bucket: str, key: str, name: str) -> None:
    parent = S3Uri(bucket, key)
    child = parent.child(name)
    assert child.name == name
    assert child.bucket == bucket
    assert not child.key.startswith("/")
    assert child.parent.key == key.rstrip("/").lstrip("/") or key.startswith("//")
    assert child.parent.child(name) == child


@given(buckets, st.lists(st.sampled_from(["", ".", "..", "a", "..a", "a.", " ", "%2e"]), max_size=5).map("/".join))
def test_odd_parts_are_the_empty_and_the_dotted_ones(bucket: str, key: str) -> None:
    parts = key.removesuffix("/").split("/") if key else []
    assert S3Uri(bucket, key).has_odd_parts == any(part in ("", ".", "..") for part in parts)


JOB = "20260101-000000-0123abcd"
PREFIXES = st.sampled_from(["", "in/", "a/b/"])
KEYS = st.lists(st.sampled_from(["", ".", "..", "in", "a", "b", "ina", "in..", JOB, "x.out"]), max_size=5).map("/".join)


@given(PREFIXES, PREFIXES, st.sampled_from(["inputs", "outputs", "others"]), KEYS | st.text(max_size=12))
def test_nothing_outside_the_configured_buckets_and_prefixes_may_be_deleted(
    input_prefix: str, output_prefix: str, bucket: str, key: str
) -> None:
    config = AsyncEndpointConfig(
        input_bucket="inputs", output_bucket="outputs", input_prefix=input_prefix, output_prefix=output_prefix
    )
    manager = ResourceManager(config, Mock(spec=S3Manager))
    if manager.may_delete(S3Uri(bucket, key)):
        assert bucket != "others"
        if bucket == "inputs":
            assert key.startswith(input_prefix)
        else:
            assert key.startswith(output_prefix) or JOB in key.split("/")


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


@pytest.mark.parametrize("key", ["out//a.out", "out/../a.out", "./a.out", "a\nb", "\x7f", "\ud800"])
@pytest.mark.parametrize("call", ["get", "head"])
def test_a_key_that_cannot_be_asked_for_is_an_error_of_s3(key: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    s3 = S3Manager(boto3.Session(aws_access_key_id="id", aws_secret_access_key="key", region_name="us-east-1"))
    with pytest.raises(S3OperationError) as caught:
        getattr(s3, call)(S3Uri("outputs", key))
    assert in_one_line(f"s3://outputs/{key}") in str(caught.value)
    assert str(caught.value).isprintable()
