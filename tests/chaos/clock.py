"""A Celery command whose clock is wrong: ``python -m tests.chaos.clock FILE ARGUMENT...``.

As long as FILE exists, the clock is ahead by the seconds that it holds; behind, if they are negative. Shifted is what
Python programs ask for the time, ``time.time`` and ``datetime.now``, before Celery and this package are imported;
children inherit it.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from typing import Any

_LOOK_EVERY = 0.1

_true_time, _Datetime = time.time, datetime.datetime


class _Shift:
    """By how much the clock is wrong, s; looked up ten times a second at most."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._looked = float("-inf")
        self._seconds = 0.0

    def now(self) -> float:
        if time.monotonic() - self._looked > _LOOK_EVERY:
            self._looked = time.monotonic()
            self._seconds = float(self._file.read_text()) if self._file.exists() else 0.0
        return _true_time() + self._seconds


class _Meta(type):
    """Any date is one of ours."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _Datetime)


def shift(file: Path) -> None:
    """Have this process's clock be wrong while a file exists."""

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

    time.time = _Shift(file).now
    datetime.datetime = Shifted  # type: ignore[misc]


def main() -> None:
    """Run Celery's command line."""
    shift(Path(sys.argv.pop(1)))
    from celery.__main__ import main as celery

    celery()


if __name__ == "__main__":
    main()
