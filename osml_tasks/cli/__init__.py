"""The command ``osml-tasks``. Each subcommand is a file of its own, loaded when it is called."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from osml_tasks.one_line import in_one_line
from osml_tasks.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

EXIT_JOB_FAILED = 1
EXIT_USAGE = 2
EXIT_TILES_FAILED = 3
EXIT_INTERRUPTED = 130

_OBJECTS_TO_A_COLLECTION = 500_000

# What a write to standard output ends with when nothing takes it.
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EPIPE)

# What ``--help`` says of each, so that it need not load them.
_COMMANDS = {
    "demo": "Find ships in a harbour: the whole system on this machine.",
    "detect": "Send tiles through an endpoint and write one GeoJSON file.",
    "jobs": "List the latest jobs.",
    "status": "Say where a job stands.",
    "watch": "Follow a job until it ends.",
    "result": "Wait for a job and fetch its result.",
    "cancel": "Stop a job.",
    "retry": "Try the failed tiles of a job again.",
    "resume": "Go on with a job after the broker was lost.",
    "queues": "Say what waits for workers, and what for endpoints.",
    "cleanup": "Delete what is due, and say what is left.",
    "worker": "Run workers for all queues.",
    "check": "Look whether broker, workers, buckets and endpoint are there.",
    "local": "Run broker, S3 server, endpoint and workers on this machine.",
}


class _Commands(click.Group):
    """Subcommands by name, each in the module of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"osml_tasks.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 every tile succeeded; 3 some tiles failed; 1 the job failed; "
    "2 usage, configuration or environment; 130 interrupted.",
)
@click.version_option(__version__, prog_name="osml-tasks")
def group() -> None:
    """Object detection through Amazon SageMaker asynchronous endpoints, on a Celery fleet."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the status that the documentation names."""
    signal.signal(signal.SIGTERM, _interrupt)
    # Nearly all that a command makes are modules, which stay: to search them for garbage again and again, and once
    # more at the exit, would be a quarter of its CPU.
    gc.set_threshold(_OBJECTS_TO_A_COLLECTION)
    status = run(arguments)
    gc.freeze()
    sys.exit(status)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; every expected failure becomes one line and an exit status."""
    try:
        return int(group.main(arguments, prog_name="osml-tasks", standalone_mode=False) or 0)
    except click.ClickException as error:
        return _fail(error.format_message(), EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", EXIT_INTERRUPTED)
    except OSError as error:
        if error.filename is not None or error.errno not in _NO_ROOM:
            raise
        return _fail(_output_is_lost(error), EXIT_USAGE)
    except Exception as error:
        status = _expected(error)
        if status is None:
            raise
        return _fail(str(error), status)


def _output_is_lost(error: OSError) -> str:
    """Give standard output up; says so."""
    # What is left in its buffer would be written at the exit, in vain, and with another exit status.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return f"standard output cannot be written: {error.strerror}: send it elsewhere"


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM like Ctrl-C, so that whatever was started is stopped again."""
    raise KeyboardInterrupt


def _expected(error: Exception) -> int | None:
    """The exit status for an error that a person can do something about, None for a defect of ours."""
    from kombu.exceptions import OperationalError
    from redis.exceptions import RedisError

    from osml_tasks.errors import ExtensionError, JobFailedError

    if isinstance(error, JobFailedError):
        return EXIT_JOB_FAILED
    return EXIT_USAGE if isinstance(error, ExtensionError | OperationalError | RedisError) else None


def _fail(message: str, status: int) -> int:
    for line in message.splitlines() or [""]:
        click.echo(f"osml-tasks: {in_one_line(line)}", err=True)
    return status
