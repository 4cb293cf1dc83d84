"""No credential and no query string comes through, wherever it stands."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.redaction import Redaction

MARK = "S3CR3T"
VISIBLE = "".join(map(chr, range(33, 127)))
around = st.text()
tails = st.text(st.sampled_from(VISIBLE), max_size=20)
schemes = st.sampled_from(["redis", "rediss", "amqp", "amqps", "https", "s3", "sentinel", "x+y"])
hosts = st.sampled_from(["broker", "127.0.0.1:6379", "[::1]:5672", "a.b-c.example"])


@given(before=around, scheme=schemes, user=st.text(string.ascii_letters), tail=tails, host=hosts, after=around)
def test_a_password_in_a_url_is_taken_out_escaped_or_not(
    before: str, scheme: str, user: str, tail: str, host: str, after: str
) -> None:
    for password in (MARK + tail, quote(MARK + tail, safe="")):
        assert MARK not in Redaction()(f"{before} {scheme}://{user}:{password}@{host}/0 {after}")


@given(before=around, scheme=schemes, host=hosts, path=st.text(string.ascii_letters + "/"), tail=tails, after=around)
def test_a_query_string_goes_with_its_question_mark(
    before: str, scheme: str, host: str, path: str, tail: str, after: str
) -> None:
    said = Redaction()(f"{before} {scheme}://{host}/{path}?X-Amz-Expires=60&X-Amz-Signature={MARK}{tail} {after}")
    assert MARK not in said
    assert "X-Amz-Expires" not in said


@given(
    before=around,
    kind=st.sampled_from(["AKIA", "ASIA"]),
    rest=st.text(st.sampled_from(string.ascii_uppercase + "234567"), min_size=16, max_size=16),
    after=around,
)
def test_an_access_key_id_is_known_by_its_form(before: str, kind: str, rest: str, after: str) -> None:
    assert kind + rest not in Redaction()(f"{before} {kind}{rest} {after}")
    assert kind + rest not in Redaction()(f"Credential={kind}{rest}/20261124/us-west-2/s3/aws4_request")


@given(value=st.text(st.sampled_from(string.ascii_letters + string.digits + "/+="), max_size=60), after=around)
@pytest.mark.parametrize(
    "spelling",
    [
        "aws_secret_access_key = {}",
        "AWS_SECRET_ACCESS_KEY={}",
        "AWS_SESSION_TOKEN='{}'",
        "{{'SecretAccessKey': '{}', 'Expiration': 1}}",
        '{{"SessionToken": "{}"}}',
        '"{{\\"SessionToken\\": \\"{}\\"}}"',
        "<SecretAccessKey>{}</SecretAccessKey>",
        "'X-Amz-Security-Token': b'{}'",
        "/key?X-Amz-Signature={} HTTP/1.1",
        "Signature={}",
        "ExternalId={}",
        "password={}",
    ],
)
def test_a_value_is_taken_out_by_its_name(spelling: str, value: str, after: str) -> None:
    assert MARK not in Redaction()(f"{spelling.format(MARK + value)} {after}")


@given(
    secret=st.text(st.sampled_from(string.ascii_letters + string.digits + "_+=,.@:/-"), min_size=2),
    before=around,
    after=around,
)
def test_a_known_secret_is_taken_out_wherever_it_stands(secret: str, before: str, after: str) -> None:
    redact = Redaction([secret])
    assert secret not in redact(before + secret + after)
    assert quote(secret, safe="") not in redact(f"id%3D{quote(secret, safe='')}%26")


@pytest.mark.parametrize(
    "text",
    [
        "job 20261124-090000-1f2e3d4c of 50 tiles",
        "s3://bucket/async-inference/output/20261124-090000-1f2e3d4c/00003/0000150-1.out was denied",
        "http://127.0.0.1:8333/bucket/a@b.tif does not answer",
        "is it there? yes: someone@example.com",
        "arn:aws:iam::123456789012:role/osml",
        "check the external id, ASYNC_SM_EXTERNAL_ID (the one given with it)",
        "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redaction(["external-4711"])(text) == text


def test_a_url_still_says_where_it_leads() -> None:
    said = Redaction()("amqp://fleet:sesame@rabbit:5672/osml, https://b.s3.amazonaws.com/k?X-Amz-Signature=abc")
    assert said == "amqp://***@rabbit:5672/osml, https://b.s3.amazonaws.com/k"
