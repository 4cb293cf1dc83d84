"""A Celery or ``osml-tasks`` command whose every message is delivered twice, in any order.

``python -m tests.chaos.twice celery|osml-tasks ARGUMENT...``: each message to a queue of ours is put there
twice, each time with a delivery tag of its own, and at either end of the queue.
"""

from __future__ import annotations

import random
import sys
from typing import Any
from uuid import uuid4

from kombu.transport.redis import Channel
from kombu.utils.json import dumps

_put = Channel._put


def put_twice(channel: Channel, queue: str, message: dict[str, Any], **options: Any) -> None:
    """In place of ``Channel._put``."""
    if not queue.startswith("osml."):
        _put(channel, queue, message, **options)
        return
    batch = options.pop("_publish_batch", None)
    key = channel._q_for_pri(queue, channel._get_message_priority(message, reverse=False))
    for copy in (message, _again(message)):
        put = random.choice(("lpush", "rpush"))
        if batch is not None:
            batch.add(put, key, dumps(copy))
        else:
            with channel.conn_or_acquire() as client:
                getattr(client, put)(key, dumps(copy))


def _again(message: dict[str, Any]) -> dict[str, Any]:
    return message | {"properties": message["properties"] | {"delivery_tag": str(uuid4())}}


def main() -> None:
    """Run the command."""
    Channel._put = put_twice
    program = sys.argv.pop(1)
    if program == "celery":
        from celery.__main__ import main as run
    else:
        from osml_tasks.cli import main as run
    run()


if __name__ == "__main__":
    main()
