"""What a check has found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from osml_tasks.errors import ExtensionError


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    :ivar ok: whether it is as it should be; None where that cannot be told.
    :ivar detail: what was found, in one line.
    :ivar worth_saying: whether somebody who starts a job is to hear of it although the job can start.
    """

    name: str
    ok: bool | None
    detail: str
    worth_saying: bool = False


def finding(name: str, check: Callable[[], str]) -> Finding:
    """Make a check; what it raises on purpose is what it has found."""
    try:
        return Finding(name, True, check())
    except ExtensionError as error:
        return Finding(name, False, str(error))
