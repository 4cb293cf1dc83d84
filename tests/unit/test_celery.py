"""The apps: one for workers, one for publishing."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from celery.app.defaults import NAMESPACES, flatten

from osml_tasks.celery import app, broker_is_configured, client_app, new_app, state_client
from osml_tasks.celery_settings import DEFAULT_BROKER_URL, DEFAULTS, QUEUES, complaints
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.redis_keys import PREFIX
from tests.waiting import PATIENCE

KNOWN_SETTINGS = {name for name, _ in flatten(NAMESPACES)}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    client_app.cache_clear()
    yield
    client_app.cache_clear()


def test_a_client_publishes_where_the_app_was_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.conf, "broker_url", "redis://told-in-python:6379/0")
    monkeypatch.setitem(app.conf, "broker_use_ssl", {"ssl_cert_reqs": "required"})
    assert broker_is_configured()
    assert client_app().conf.broker_url == "redis://told-in-python:6379/0"
    assert client_app().conf.broker_use_ssl == {"ssl_cert_reqs": "required"}
    assert client_app().conf.task_routes == app.conf.task_routes


def test_state_is_where_the_messages_are_unless_it_is_said_otherwise() -> None:
    assert new_app("redis://one:1/0").conf.result_backend == "redis://one:1/0"
    assert new_app("redis://one:1/0", "redis://two:2/0").conf.result_backend == "redis://two:2/0"
    assert [queue.name for queue in new_app().conf.task_queues] == list(QUEUES)


def test_a_backend_without_state_says_what_to_set() -> None:
    for backend in ("cache+memory://", "rpc://", "disabled://", "amqp://user:sesame@rabbit//"):
        with pytest.raises(ExtensionConfigurationError, match="set CELERY_RESULT_BACKEND to a Redis URL"):
            state_client(new_app("redis://one:1/0", backend))


def test_rabbitmq_alone_keeps_no_state_and_its_password_is_not_said() -> None:
    with pytest.raises(ExtensionConfigurationError, match="set CELERY_RESULT_BACKEND to a Redis URL") as said:
        state_client(new_app("amqp://user:sesame@rabbit//"))
    assert "sesame" not in str(said.value)


def test_importing_the_package_takes_nobodys_place_as_the_current_app() -> None:
    from celery import current_app

    assert current_app._get_current_object() is not app


def test_the_operators_file_repeats_the_packages_settings_each_with_its_reason() -> None:
    path = Path(__file__).parents[2] / "celeryconfig.py"
    settings = {name: value for name, value in run_path(str(path)).items() if name in KNOWN_SETTINGS}
    assert settings == DEFAULTS
    for name in settings:
        (line,) = re.findall(rf"^{name} = .*$", path.read_text(), re.MULTILINE)
        assert "  # " in line, f"{name} has no reason"


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"broker_transport_options": {"socket_timeout": 5}}, "visibility_timeout .* is not set: set it to 90 s"),
        ({"broker_transport_options": {"visibility_timeout": 30}}, "visibility_timeout .* is 30"),
        ({"accept_content": ["pickle"]}, r"accept_content is \['pickle'\]: leave it at \['json'\]"),
        ({"task_acks_late": False}, "task_acks_late is False: leave it at True"),
        ({"broker_url": "amqp://rabbit", "broker_transport_options": {}}, "confirm_publish .* is not on"),
    ],
)
def test_settings_that_would_lose_work_are_answered_in_a_line(changed: dict[str, Any], complaint: str) -> None:
    (said,) = complaints(DEFAULTS | changed)
    assert re.match(complaint, said)


def test_settings_for_another_broker_and_the_packages_own_are_no_reason_to_complain() -> None:
    assert not [*complaints(DEFAULTS)]
    assert not [*complaints(DEFAULTS | {"broker_url": "amqp://rabbit"})]
    confirmed = {"broker_url": "amqp://rabbit", "broker_transport_options": {"confirm_publish": True}}
    assert not [*complaints(DEFAULTS | confirmed)]


def test_an_operators_options_keep_the_prefix_of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "operators.py").write_text(
        "broker_transport_options = {'visibility_timeout': 120}\n"
        "result_backend_transport_options = {'global_keyprefix': 'mine:'}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "operators")
    conf = new_app().conf
    assert conf.broker_transport_options == {"visibility_timeout": 120, "global_keyprefix": PREFIX}
    assert conf.result_backend_transport_options == {"global_keyprefix": "mine:"}


def test_a_master_without_a_name_is_answered_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExtensionConfigurationError, match=r"^master_name in broker_transport_options is not set: "):
        _ = new_app("sentinel://one:26379/0;sentinel://two:26379/0").conf.result_backend
    (tmp_path / "guarded.py").write_text("broker_transport_options = {'master_name': 'osml'}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "guarded")
    with pytest.raises(ExtensionConfigurationError, match=r"^master_name in result_backend_transport_options is not"):
        _ = new_app("sentinel://one:26379/0").conf.result_backend
    assert new_app("sentinel://one:26379/0", "redis://two:6379/0").conf.broker_url.startswith("sentinel:")


def test_a_command_takes_the_operators_file_beside_it_and_a_program_does_not(tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text(
        "broker_url = 'redis://operators:1/0'\nbroker_transport_options = {'visibility_timeout': 30}\n"
    )
    celery = [sys.executable, "-m", "celery", "-A", "osml_tasks"]
    program = "from osml_tasks.celery import app; print(app.conf.broker_url, app.conf.result_backend)"

    def said(*command: str, **variables: str) -> str:
        env = {name: value for name, value in os.environ.items() if not name.startswith("CELERY_")} | variables
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return done.stdout + done.stderr

    report = said(*celery, "report")
    assert "redis://operators:1/0" in report
    said_so = f"osml-tasks: takes the settings of {tmp_path}/celeryconfig.py; CELERY_CONFIG_MODULE names others"
    assert report.count(said_so) == 1
    assert "results:redis://operators:1/0" in report
    assert "redis://theirs:1/0" in said(*celery, "report", CELERY_BROKER_URL="redis://theirs:1/0")
    buckets = {"ARTIFACT_BUCKET": "one", "ASYNC_SM_OUTPUT_BUCKET": "two"}
    assert "osml-tasks: visibility_timeout in" in said(*celery, "worker", **buckets)
    assert said(sys.executable, "-c", program).split() == [DEFAULT_BROKER_URL, DEFAULT_BROKER_URL]
    (tmp_path / "mine.py").write_text("broker_url = 'redis://mine:1/0'")
    named = said(*celery, "report", CELERY_CONFIG_MODULE="mine")
    assert "redis://mine:1/0" in named
    assert said_so not in named


def test_a_file_that_anybody_may_have_written_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "celeryconfig.py"
    path.write_text("print('it ran')")
    path.chmod(0o666)
    command = [sys.executable, "-m", "osml_tasks", "jobs"]
    env = os.environ | {"ARTIFACT_BUCKET": "one", "ASYNC_SM_OUTPUT_BUCKET": "two", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"osml-tasks: {path} lies where the command is called and may be anybody's")
    assert "it ran" not in done.stdout + done.stderr


def test_a_certificate_is_checked_unless_an_operator_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    plain = new_app("redis://one:1/0").conf
    assert (plain.broker_use_ssl, plain.redis_backend_use_ssl) == (False, None)
    both = new_app("rediss://one:1/0").conf
    assert (both.broker_use_ssl, both.redis_backend_use_ssl) == (checked, checked)
    assert state_client(new_app("rediss://one:1/0")).connection_pool.connection_kwargs["ssl_check_hostname"] is True
    monkeypatch.setenv("CELERY_BROKER_URL", "rediss://one:1/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none")
    lax = new_app(result_backend="rediss://two:1/0").conf
    assert lax.broker_use_ssl == checked | {"ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": ssl.CERT_NONE}
    assert lax.redis_backend_use_ssl == checked


def test_a_file_for_tls_that_is_not_there_is_answered_in_a_line() -> None:
    (said,) = complaints(DEFAULTS | {"redis_backend_use_ssl": {"ssl_ca_certs": "/none.pem"}})
    assert said.startswith("ssl_ca_certs of redis_backend_use_ssl is '/none.pem': there is no such file")
