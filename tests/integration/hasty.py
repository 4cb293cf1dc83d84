"""The app of workers whose tasks have little time when they are to stop: ``celery -A tests.integration.hasty``."""

from __future__ import annotations

from osml_tasks.celery import app
from osml_tasks.stopping import WORKER

__all__ = ["app"]

WORKER.grace = 1.0
