"""A Celery worker whose clock is wrong: ``python -m tests.chaos.clock FILE ARGUMENT...``.

As long as FILE exists, the clock is ahead by the seconds that it holds; behind, if they are negative. Shifted are
``time.time``, before Celery and this package are imported, and ``datetime.now`` where Celery, kombu, botocore and this
package ask it. What is written in Rust keeps the true time: it would not know a stranger's ``datetime``.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

_LOOK_EVERY = 0.1
_ASKERS = ("celery", "kombu", "botocore", "osml_tasks")

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


class _AnyDate(type):
    """What every date is an instance of."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Datetime)


class Shifted(datetime.datetime, metaclass=_AnyDate):
    """The class ``datetime``, as far as it is called; what it makes are ordinary ones."""

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        return _Datetime(*arguments, **options)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _Datetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return _Datetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


def shift_dates(**_: Any) -> None:
    """Have the modules that ask for the time of day ask :class:`Shifted`."""
    module = ModuleType("datetime")
    vars(module).update(vars(datetime) | {"datetime": Shifted})
    for name, loaded in list(sys.modules.items()):
        if name.partition(".")[0] in _ASKERS:
            found = getattr(loaded, "datetime", None)
            if found is _Datetime:
                loaded.datetime = Shifted  # type: ignore[attr-defined]
            elif found is datetime:
                loaded.datetime = module  # type: ignore[attr-defined]


def main() -> None:
    """Run Celery's command line."""
    time.time = _Shift(Path(sys.argv.pop(1))).now
    from celery.__main__ import main as celery
    from celery.signals import worker_init

    worker_init.connect(shift_dates, weak=False)
    celery()


if __name__ == "__main__":
    main()
