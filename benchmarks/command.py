"""What every command of the benchmarks does around its work."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from benchmarks.arena import open_arena
from benchmarks.errors import BenchmarkError
from benchmarks.run import Ground
from osml_tasks.errors import ExtensionError


@contextmanager
def open_ground() -> Iterator[Ground]:
    """Bring up what all runs stand on, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="osml-benchmark-") as directory:
        root = Path(directory).resolve()
        places = {name: root / name for name in ("arena", "tiles", "runs")}
        for place in places.values():
            place.mkdir()
        with open_arena(places["arena"], places["tiles"]) as arena:
            yield Ground.lay(arena, places["runs"])


def guarded(command: click.Command) -> int:
    """Run a command line; says the exit status, 1 with one line where a run went wrong."""
    try:
        return int(command.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (BenchmarkError, ExtensionError) as error:
        click.echo(f"the benchmark failed: {error}", err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        return 130
