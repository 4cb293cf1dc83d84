"""What tests do as a user of AWS, and what they look at past the front."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.aws.bed import Bed
from tests.integration.fleet import REPOSITORY, Fleet
from tests.waiting import PATIENCE


def python(fleet: Fleet, program: str, *arguments: str | Path, **variables: str | None) -> str:
    """What a program of a Python caller prints."""
    _, env = fleet.command(**variables)
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(
        command, env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def started(fleet: Fleet, *arguments: str | Path, **variables: str) -> str:
    """The id of a job that was started and left."""
    done = fleet.run("detect", *arguments, "--no-wait", **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def put(aws: Bed, bucket: str, key: str, body: bytes) -> str:
    """Put an object where nobody notices; says its URI."""
    aws.seen.s3.put_object(Bucket=bucket, Key=key, Body=body)
    return f"s3://{bucket}/{key}"


def removed(aws: Bed, *uris: str) -> None:
    """Take objects away again."""
    for uri in uris:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        aws.seen.s3.delete_object(Bucket=bucket, Key=key)
