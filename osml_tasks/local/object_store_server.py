"""The S3 server of the local stack by itself: ``python -m osml_tasks.local.object_store_server``.

It has the buckets that the environment names, and the keys in ``AWS_ACCESS_KEY_ID`` and
``AWS_SECRET_ACCESS_KEY`` open it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import click

from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import ExtensionError, ExtensionRuntimeError
from osml_tasks.local.object_store import ObjectStore
from osml_tasks.local.server import LOOPBACK

LOOK_SECONDS = 5.0


@click.command(context_settings={"show_default": True})
@click.option("--bind", default=LOOPBACK, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(1024, 55531), default=8333, help="Port to listen on; it takes the next four, too."
)
@click.option(
    "--directory", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where data is kept."
)
@click.option("--pulse", type=click.Path(dir_okay=False, path_type=Path), help="File to touch as long as it serves.")
def command(bind: str, port: int, directory: Path, pulse: Path | None) -> None:
    """Serve S3 until SIGTERM or SIGINT. Prints one line, "ready http://HOST:PORT", when its buckets are there."""
    key = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not all(key):
        raise click.UsageError("no key to open it with: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    buckets = _buckets(AsyncEndpointConfig())
    with ObjectStore(directory, buckets, bind=bind, port=port, key=key, log_file=False) as store:
        click.echo(f"ready {store.endpoint_url}")
        while True:
            if pulse is not None and store.serves():
                pulse.touch()
            if stopped.wait(LOOK_SECONDS):
                return
            if not store.is_alive():
                raise ExtensionRuntimeError("the S3 server has ended; see its log above")


def _buckets(config: AsyncEndpointConfig) -> tuple[str, ...]:
    return (config.input_bucket, *sorted(config.readable_output_buckets))


def main() -> int:
    """Run the command line; return its exit status: 2, after one line on stderr, if it cannot serve."""
    try:
        command.main(standalone_mode=False)
    except click.ClickException as error:
        reason = error.format_message()
    except (ExtensionError, OSError) as error:
        reason = str(error)
    else:
        return 0
    click.echo(f"error: {' '.join(reason.split())}", err=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
