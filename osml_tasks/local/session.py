"""This process on a local stack, for as long as a block lasts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from osml_tasks.local.stack import LocalStack, StackOptions


@contextmanager
def local_session(options: StackOptions) -> Iterator[LocalStack]:
    """Bring a stack up and point this process's environment at it; both are undone at the end.

    To be entered before anything reads the environment: Celery's app does so when it is imported.

    :raises ExtensionConfigurationError: the extra ``local`` is not installed.
    """
    before = dict(os.environ)
    with LocalStack(options) as stack:
        _replace_environment(stack.process_env)
        try:
            yield stack
        finally:
            _replace_environment(before)


def _replace_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
