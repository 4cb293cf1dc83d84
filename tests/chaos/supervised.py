"""A process that is started again when it dies, as Docker, systemd or Kubernetes do."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, RLock, Thread

from osml_tasks.child_process import ChildProcess
from tests.integration.forked import ForkedProcess

RESTART_SECONDS = 1.0
"""How long after a death, s."""
_EARLY_DEATH_SECONDS = 10.0
"""One that lived no longer waits five times as long."""
_START_SECONDS = 240.0


class Supervised:
    """One process after the other, with a log each.

    :param directory: where logs go, and where it runs.
    :param env: the whole environment that it has as a rule.
    :param ready: what its log has when it works.
    """

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, env: Mapping[str, str], ready: re.Pattern[str]
    ) -> None:
        self.name = name
        self.starts = 0
        self._started_at = 0.0
        self._usual = (tuple(command), dict(env))
        self._now = self._usual
        self._directory = directory
        self._ready = ready
        self._process: ChildProcess | None = None
        self._lock = RLock()
        self._stopped = Event()
        self._thread: Thread | None = None

    @property
    def pid(self) -> int:
        """The process id of the present one."""
        pid = None if self._process is None else self._process.pid
        assert pid is not None, f"{self.name} is not running"
        return pid

    @property
    def is_changed(self) -> bool:
        """Whether it runs otherwise than as a rule."""
        return self._now != self._usual

    def log_text(self) -> str:
        """What all of them have written, in their order."""
        logs = (self._directory / f"{self.name}.{number}.log" for number in range(1, self.starts + 1))
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())

    def start(self) -> None:
        """Start it, without waiting for it, and again whenever it dies."""
        with self._lock:
            self._stopped = Event()
            self._start_process()
        self._thread = Thread(target=self._supervise, args=(self._stopped,), daemon=True)
        self._thread.start()

    def wait_ready(self) -> None:
        """Wait until the present one works."""
        process = self._process
        assert process is not None
        process.wait_ready(lambda: self._ready.search(process.log_text()) is not None, within=_START_SECONDS)

    def kill(self) -> None:
        """Kill it with its children, as if its machine had gone."""
        with self._lock, suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def change(self, command: Sequence[str] | None = None, **env: str) -> None:
        """Stop it and start it with another command or with more variables; without any, as it is as a rule."""
        self.stop()
        usual_command, usual_env = self._usual
        self._now = (tuple(command or usual_command), usual_env | env)
        self.start()

    def stop(self, grace: float = 0.0) -> None:
        """Stop it, and start it no more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._process is not None:
                self._process.stop(grace=grace)
                self._process = None

    def _start_process(self) -> None:
        self.starts += 1
        self._started_at = time.monotonic()
        command, env = self._now
        self._process = ForkedProcess(
            f"{self.name}.{self.starts}",
            command,
            directory=self._directory,
            env=env,
            working_directory=self._directory,
        )
        self._process.start()

    def _supervise(self, stopped: Event) -> None:
        pause = RESTART_SECONDS
        while not stopped.wait(pause):
            pause = RESTART_SECONDS
            with self._lock:
                if self._process is not None and not self._process.is_alive():
                    lived = time.monotonic() - self._started_at
                    self._process.stop(grace=0)
                    self._start_process()
                    pause = 5 * RESTART_SECONDS if lived < _EARLY_DEATH_SECONDS else RESTART_SECONDS
