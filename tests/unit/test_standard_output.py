"""A command whose standard output nobody takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_standard_output_is_said_in_one_line() -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "osml_tasks", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    told = "osml-tasks: standard output cannot be written: No space left on device: send it elsewhere\n"
    assert (done.returncode, done.stderr) == (2, told)
