"""One client process, from its start to its end, watched from outside."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.processes import own_cpu_seconds, peak_bytes

LOOK_SECONDS = 0.02

_PUBLISHED = re.compile(rb"^job \S+$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ClientRun:
    """What one client has cost.

    :ivar started: s since the epoch.
    :ivar wall: seconds.
    :ivar cpu: CPU seconds, user and system, imports and finished children included (``wait4``).
    :ivar publish_cpu: CPU seconds from its start until it names its job, which is published then: imports, checks
        and the search for tiles included. None where it names none.
    :ivar peak: the most it had resident, bytes.
    """

    started: float
    wall: float
    cpu: float
    publish_cpu: float | None
    peak: int


class _Watch(threading.Thread):
    """Looks at a client fifty times a second, at its log until it says ``job ID``."""

    def __init__(self, pid: int, log: Path) -> None:
        super().__init__(name="client-watch", daemon=True)
        self._pid = pid
        self._log = log
        self._over = threading.Event()
        self.publish_cpu: float | None = None
        self.peak = 0

    def run(self) -> None:
        """Look until :meth:`stop`."""
        while not self._over.wait(LOOK_SECONDS):
            self.peak = max(self.peak, peak_bytes(self._pid))
            if self.publish_cpu is None and _PUBLISHED.search(self._log.read_bytes()):
                self.publish_cpu = own_cpu_seconds(self._pid) or None

    def stop(self) -> None:
        """End it, before the process id can pass to another process."""
        self._over.set()
        self.join()


def run_client(command: Sequence[str], env: Mapping[str, str], log: Path, *, within: float) -> ClientRun:
    """Run a client to its end.

    :param within: it is killed after so many seconds.
    :raises BenchmarkError: it failed, or took too long.
    """
    with log.open("wb") as output:
        started, began = time.time(), time.monotonic()
        process = subprocess.Popen(command, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
    watch = _Watch(process.pid, log)
    watch.start()
    limit = threading.Timer(within, process.kill)
    limit.start()
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall = time.monotonic() - began
    except BaseException:
        process.terminate()
        raise
    finally:
        limit.cancel()
        watch.stop()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchmarkError(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return ClientRun(started, wall, usage.ru_utime + usage.ru_stime, watch.publish_cpu, watch.peak)
