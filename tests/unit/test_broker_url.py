"""URLs of brokers and result backends: those that lead somewhere, and one line for those that cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osml_tasks.broker_url import check_broker_url, check_result_backend
from osml_tasks.errors import ExtensionConfigurationError

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://127.0.0.1:6379/0",
        "redis://user:pass%40word@host/15",
        "rediss://host:6380/0?ssl_cert_reqs=required",
        "redis+socket:///run/redis.sock?virtual_host=1",
        "sentinel://a:26379;sentinel://b:26379",
        "redis://[::1]:6379/0",
        "amqp://user:password@rabbit:5672//",
        "amqps://rabbit:5671/vhost",
        "memory://",
    ],
)
def test_what_leads_to_a_broker_is_taken(url: str) -> None:
    check_broker_url(url)
    check_result_backend(url)


WRONG = [
    ("foo", "it has no ://"),
    ("localhost:6379", "it has no ://"),
    ("http://x", "nothing here speaks that protocol"),
    ("redis:/host", "it has no ://"),
    ("redis://user:sesame@host:99999/0", "out of range"),
    ("redis://user:sesame@:x", "integer"),
    ("redis://[::1", "IPv6"),
    ("redis://host/none", "a database of Redis is a number"),
    ("redis://host/٣", "a database of Redis is a number"),
    ("redis://host/0;foo", "it has no ://"),
    ("foo\n\x1b[31m", r"'foo\n\x1b[31m'"),
]


@pytest.mark.parametrize(("url", "said"), WRONG)
def test_what_does_not_is_refused_in_one_line_without_password(url: str, said: str) -> None:
    with pytest.raises(ExtensionConfigurationError) as caught:
        check_broker_url(url)
    text = str(caught.value)
    assert text.startswith("CELERY_BROKER_URL is ")
    assert said in text
    assert text.isprintable()
    assert "sesame" not in text


@settings(deadline=None, derandomize=True)
@given(
    st.text(max_size=30)
    | st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["redis", "amqp", "http", ""]),
        st.sampled_from(["user:sesame@", ":sesame@", ""]),
        st.text("abc:[]/0159.?#%;", max_size=10),
        st.text(max_size=5),
    )
)
def test_any_text_is_taken_or_refused_in_one_line(url: str) -> None:
    for check in (check_broker_url, check_result_backend):
        with suppress(ExtensionConfigurationError):
            try:
                check(url)
            except ExtensionConfigurationError as error:
                assert str(error).isprintable()
                assert len(str(error)) < 500
                raise


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["queues"], {"CELERY_BROKER_URL": "foo"}),
        (["jobs"], {"CELERY_BROKER_URL": "redis://user:sesame@:x"}),
        (["detect", __file__, "-e", "ships", "-o", "out.geojson"], {"CELERY_BROKER_URL": "http://x"}),
        (["worker"], {"CELERY_BROKER_URL": "redis://127.0.0.1:1/zero"}),
        (["status", "some-job"], {"CELERY_RESULT_BACKEND": "redis://127.0.0.1:99999/0"}),
        (["cleanup"], {"CELERY_RESULT_BACKEND": "no_such_module://"}),
    ],
    ids=["queues", "jobs", "detect", "worker", "status", "cleanup"],
)
def test_a_command_says_so_in_one_line_and_status_2(
    arguments: list[str], variables: dict[str, str], tmp_path: Path
) -> None:
    here = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    buckets = {"ARTIFACT_BUCKET": "tiles", "ASYNC_SM_OUTPUT_BUCKET": "outputs", "AWS_DEFAULT_REGION": "us-east-1"}
    credentials = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
    command = [sys.executable, "-m", "osml_tasks", *arguments]
    env = here | buckets | credentials | variables
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("osml-tasks: ")
    assert next(iter(variables)) in line
    assert "sesame" not in line
