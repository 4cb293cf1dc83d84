"""A rig whose broker is a master with a replica under Sentinel."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.rig import Rig
from tests.integration.sentinels import Sentinels


class GuardedRig(Rig):
    """For one fault: what has failed over is not put back."""

    broker: Sentinels  # type: ignore[assignment]

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        super().__init__(directory)
        self.broker = Sentinels(directory)

    def broker_env(self) -> dict[str, str]:
        """The same, and where the master's name is."""
        return super().broker_env() | {"CELERY_CONFIG_MODULE": "tests.integration.sentinel_settings"}
