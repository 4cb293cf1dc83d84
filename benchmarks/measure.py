"""CPU of processes, requests to S3, and what an endpoint says of itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil  # type: ignore[import-untyped]

CLIENT_SECONDS = 200.0
"""A client that takes longer is killed, s."""

_S3_REQUESTS = re.compile(r"^SeaweedFS_s3_request_total\{.*\} (\S+)$", re.MULTILINE)


class BenchmarkError(Exception):
    """A run did not do its work, so its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class ClientRun:
    """One client, from its start to its end.

    :ivar started: s since the epoch.
    :ivar wall: seconds.
    :ivar cpu: CPU seconds, user and system, imports and finished children included (``wait4``).
    """

    started: float
    wall: float
    cpu: float


def run_client(command: Sequence[str], env: Mapping[str, str], log: Path) -> ClientRun:
    """Run a client to its end.

    :raises BenchmarkError: it failed, or took too long.
    """
    started, began = time.time(), time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
    limit = threading.Timer(CLIENT_SECONDS, process.kill)
    limit.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        limit.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchmarkError(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return ClientRun(started, time.monotonic() - began, usage.ru_utime + usage.ru_stime)


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds, user and system, of processes and all their descendants, finished ones included."""
    return sum(_tree_cpu_seconds(psutil.Process(pid)) for pid in pids)


def _tree_cpu_seconds(root: psutil.Process) -> float:
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def child_pids() -> set[int]:
    """The processes that this one has started."""
    return {child.pid for child in psutil.Process().children()}


def s3_requests(metrics_url: str) -> int:
    """How many requests the S3 server has answered so far, failed ones included."""
    with urlopen(metrics_url) as answer:
        return round(sum(float(count) for count in _S3_REQUESTS.findall(answer.read().decode())))


def endpoint_stats(url: str, endpoint: str) -> dict[str, Any]:
    """The counts of one endpoint since the server's start."""
    with urlopen(f"{url}/stats") as answer:
        return dict(json.load(answer)[endpoint])
