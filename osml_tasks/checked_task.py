"""A Celery task that looks at its arguments before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Task
from celery.exceptions import Ignore

from osml_tasks.errors import MessageRefusedError
from osml_tasks.messages import check_arguments, log_refused

if TYPE_CHECKING:
    _Task = Task[Any, Any]
else:
    _Task = Task


class CheckedTask(_Task):
    """What every task of the app is.

    :cvar answers: whether its caller waits for a result, which a refusal then is.
    """

    answers = False

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Refuse a message that says anything but what its task takes.

        :raises Ignore: so that nothing comes of it; or the refusal itself, where that is the task's result.
        """
        try:
            check_arguments(str(self.name), args, kwargs)
        except MessageRefusedError as error:
            log_refused(self.name, error)
            if self.answers:
                raise
            raise Ignore from error
