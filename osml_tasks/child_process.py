"""A process that belongs to this one: started, waited for, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from osml_tasks.errors import ExtensionRuntimeError

_POLL_SECONDS = 0.02
_TAIL_LINES = 12
_PORT_TAKEN_MARKS = ("address already in use", "is not available on")

# The command replaces the shell (same process id); beside it stays a watcher that reads a pipe whose
# other end only the parent holds. When the parent dies, even by SIGKILL, the pipe ends, and the watcher
# ends the group. PR_SET_PDEATHSIG would not do: it fires when the starting *thread* ends, and only on
# Linux. The background part must not read fd 0: a shell points that at /dev/null.
_WATCHED = """
exec 3<&0 </dev/null
{ trap '' TERM; read -r _ || true; kill -TERM $$; n=0
  while kill -0 $$ && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
  kill -KILL 0
} <&3 >/dev/null 2>&1 &
exec "$@" 3<&-
"""


class PortTakenError(ExtensionRuntimeError):
    """Another process took the port between choosing it and binding it; another port will do."""


class ChildProcess:
    """A command in a session of its own.

    It ends with this process, however this process ends. (A process that this one forks without
    ``exec`` shares that tie: then the command ends with the last of them.)

    :param directory: where its output goes, to ``name.log``; ``None`` leaves it on ours.
    :param env: its whole environment; ``None`` hands ours on.
    :param working_directory: where it runs; ``None`` for our own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        directory: Path | None,
        env: Mapping[str, str] | None = None,
        working_directory: Path | None = None,
    ) -> None:
        self.name = name
        self.log_path = None if directory is None else directory / f"{name}.log"
        self._command = [str(part) for part in command]
        self._working_directory = working_directory
        self._env = None if env is None else dict(env)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The command's process id, ``None`` before start and after stop."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the command, without waiting for anything; does nothing where it was started."""
        if self._process is not None:
            return
        with nullcontext() if self.log_path is None else self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHED, self.name, *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=None if log is None else subprocess.STDOUT,
                cwd=self._working_directory,
                env=self._env,
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def wait_ready(self, ready: Callable[[], bool], *, within: float) -> None:
        """Wait until ``ready()``, at most ``within`` seconds.

        :raises PortTakenError: it ended because a port was taken.
        :raises ExtensionRuntimeError: it ended, or was not ready in time; ends with its last log lines.
        """
        deadline = time.monotonic() + within
        while not ready():
            self._raise_if_ended()
            if time.monotonic() > deadline:
                raise ExtensionRuntimeError(
                    f"{self.name} was not ready within {within:g} s; its log ends: {self._log_tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def _raise_if_ended(self) -> None:
        code = None if self._process is None else self._process.poll()
        if code is None:
            return
        tail = self._log_tail()
        taken = any(mark in self.log_text().lower() for mark in _PORT_TAKEN_MARKS)
        error = PortTakenError if taken else ExtensionRuntimeError
        raise error(f"{self.name} ended with code {code} while starting; its log ends: {tail}")

    def log_text(self) -> str:
        """What it has written so far, if that goes to a file."""
        if self.log_path is None:
            return ""
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _log_tail(self) -> str:
        if self.log_path is None:
            return "(see the output of this process)"
        lines = [line.strip() for line in self.log_text().splitlines() if line.strip()]
        return " | ".join(lines[-_TAIL_LINES:]) or "(empty)"

    def stop(self, *, grace: float = 5.0) -> None:
        """Stop it: SIGTERM, up to ``grace`` seconds, then SIGKILL for all of its group.

        May be called again. A ``grace`` of 0 goes straight to SIGKILL.
        """
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if grace > 0:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(grace)
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    # The watcher still is in the group, so its number cannot have passed to another group.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
