"""A Celery command whose clock is wrong: ``python -m tests.chaos.clock SECONDS ARGUMENT...``.

Shifts what Python programs ask for the time, ``time.time`` and ``datetime.now``, before Celery and this package
are imported; their children inherit it.
"""

from __future__ import annotations

import datetime
import sys
import time
from typing import Any

_true_time, _Datetime = time.time, datetime.datetime


class _Meta(type):
    """Any date is one of ours."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _Datetime)


def shift(seconds: float) -> None:
    """Put this process's clock forward; back, if negative."""

    class Shifted(_Datetime, metaclass=_Meta):
        def __new__(cls, *arguments: Any, **options: Any) -> Any:
            return _Datetime(*arguments, **options)

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return _Datetime.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return _Datetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return _Datetime.fromtimestamp(time.time())

    time.time = lambda: _true_time() + seconds
    datetime.datetime = Shifted  # type: ignore[misc]


def main() -> None:
    """Run Celery's command line."""
    shift(float(sys.argv.pop(1)))
    from celery.__main__ import main as celery

    celery()


if __name__ == "__main__":
    main()
