"""What Celery's tools show of a message."""

from __future__ import annotations

from typing import Any

import pytest

from osml_tasks.celery import app, new_app
from osml_tasks.jobs import Shard
from osml_tasks.labels import label

SHARD = Shard("20261124-101500-1f2e3d4c", 3, 150, 50, 9000, 12000).to_message()
LABEL = "job=20261124-101500-1f2e3d4c shard=3 tiles=150..199"


@pytest.mark.parametrize("made_by", [app, new_app()], ids=["a worker", "a client"])
def test_every_message_says_its_job_and_shard_in_headers_and_event(made_by: Any) -> None:
    made = made_by.amqp.create_task_message("id", "osml_tasks.poll", (), SHARD, create_sent_event=True)
    assert made.headers["argsrepr"] == LABEL
    assert made.sent_event["args"] == LABEL
    assert made.headers["kwargsrepr"] == repr(SHARD)


def test_a_label_of_the_callers_own_stays() -> None:
    made = app.amqp.create_task_message("id", "osml_tasks.poll", (), SHARD, argsrepr="mine")
    assert made.headers["argsrepr"] == "mine"


@pytest.mark.parametrize(
    ("keywords", "wanted"),
    [
        ({"job": "one"}, "job=one"),
        (SHARD | {"idle": 3, "seen": 20}, LABEL),
        ({"job": "one", "shard": "no number", "first": "x", "tiles": None}, "job=one shard=no number"),
        ({"sources": "s3://bucket/tiles/", "endpoint": "ships"}, None),
        ({}, None),
    ],
)
def test_the_label_has_what_the_keywords_have(keywords: dict[str, Any], wanted: str | None) -> None:
    assert label(keywords) == wanted


def test_a_message_about_no_job_looks_as_celery_makes_it() -> None:
    made = app.amqp.create_task_message("id", "osml_tasks.detect", ("s3://bucket/tiles/",), {"endpoint": "ships"})
    assert made.headers["argsrepr"] == "('s3://bucket/tiles/',)"
