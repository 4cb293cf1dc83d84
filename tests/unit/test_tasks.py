"""A message that is parked, to be sent later."""

from __future__ import annotations

import pytest

from osml_tasks import tasks
from osml_tasks.jobs import Shard
from osml_tasks.messages import parked_message

SHARD = Shard(job="j", shard=0, first=0, tiles=1, start=0, end=9).to_message()


@pytest.mark.parametrize("headers", [{}, {"redelivered": True}, {"traceparent": "00-1f-2e-01"}])
def test_a_message_that_came_again_or_is_traced_can_be_sent_later(headers: dict[str, object]) -> None:
    tasks.submit.push_request(id="1", args=[], kwargs=SHARD, delivery_info={"routing_key": "osml.submit"}, **headers)
    try:
        message = parked_message(tasks._message(tasks.submit))
    finally:
        tasks.submit.pop_request()
    assert (message["task"], message["kwargs"], message["options"]["task_id"]) == ("osml_tasks.submit", SHARD, "1")
