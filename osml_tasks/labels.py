"""What a message says of itself where Celery shows arguments: Flower, ``celery inspect``, ``celery events``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.app.amqp import AMQP, task_message


class LabelledMessages(AMQP):
    """Messages whose arguments read ``job=20261124-101500-1f2e3d4c shard=3 tiles=150..199``.

    Every message of an app is made here, those of a chord, of a retry and of a shard that was parked
    included. The keywords stay as Celery shows them, so that Flower finds ``kwargs:shard=3``.
    """

    def as_task_v2(
        self, task_id: str, name: str, args: Any = None, kwargs: Any = None, *others: Any, **options: Any
    ) -> task_message:
        """Make a message; an ``argsrepr`` of the caller's own stays."""
        if options.get("argsrepr") is None:
            options["argsrepr"] = label(kwargs or {})
        return super().as_task_v2(task_id, name, args, kwargs, *others, **options)


def label(keywords: Mapping[str, Any]) -> str | None:
    """Which job and shard a message is about, most telling first: a list may cut it off. None if about none."""
    if "job" not in keywords:
        return None
    words = [f"job={keywords['job']}"]
    if "shard" in keywords:
        words.append(f"shard={keywords['shard']}")
    first, tiles = keywords.get("first"), keywords.get("tiles")
    if isinstance(first, int) and isinstance(tiles, int):
        words.append(f"tiles={first}..{first + tiles - 1}")
    return " ".join(words)
