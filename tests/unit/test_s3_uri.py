"""Buckets and keys as they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.s3 import S3Uri

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
