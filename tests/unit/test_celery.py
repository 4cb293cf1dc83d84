"""The apps: one for workers, one for publishing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from osml_tasks.celery import QUEUES, app, broker_is_configured, client_app, new_app, state_client
from osml_tasks.errors import ExtensionConfigurationError


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
    for backend in ("cache+memory://", "rpc://", "disabled://"):
        with pytest.raises(ExtensionConfigurationError, match="set CELERY_RESULT_BACKEND to a Redis URL"):
            state_client(new_app("redis://one:1/0", backend))


def test_importing_the_package_takes_nobodys_place_as_the_current_app() -> None:
    from celery import current_app

    assert current_app._get_current_object() is not app
