"""Try all faults and print what they cost: ``python -m tests.chaos [NAME...] [--write DOCUMENT]``."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import click
from rich.console import Console
from rich.live import Live

from tests.chaos import table
from tests.chaos.faults import Fault, all_faults
from tests.chaos.renewed_rig import RenewedRig
from tests.chaos.row import Row


@click.command(context_settings={"show_default": True})
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--write", type=click.Path(exists=True, path_type=Path), help="Document to put the table into.")
@click.option("--rigs", type=click.IntRange(1), default=2, help="Fleets that faults are tried on side by side.")
@click.option("--directory", type=click.Path(path_type=Path), help="Keep logs and data there.")
@click.option("--list", "only_list", is_flag=True, help="Print the names and leave.")
def main(names: tuple[str, ...], write: Path | None, rigs: int, directory: Path | None, only_list: bool) -> None:
    """Try the faults whose name contains NAME; all of them without one."""
    chosen = [fault for fault in all_faults() if not names or any(name in fault.name for name in names)]
    if not chosen:
        raise click.UsageError(f"no fault has a name with {' or '.join(names)}: see --list")
    if only_list:
        click.echo("\n".join(fault.name for fault in chosen))
        return
    with _kept(directory) as place:
        rows = _try_all(chosen, min(rigs, len(chosen)), place)
    complete = len(rows) == len(chosen)
    if write is not None:
        table.write(write, rows)
    survived = complete and all(map(Fault.is_survived, chosen, rows))
    sys.exit(0 if survived else 1)


@contextmanager
def _kept(directory: Path | None) -> Iterator[Path]:
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="osml-chaos-") as temporary:
            yield Path(temporary)
    else:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory


def _try_all(faults: Sequence[Fault], rigs: int, directory: Path) -> list[Row]:
    """Try faults on several rigs at a time; answers in their order, without those that could not be tried."""
    rows: dict[str, Row] = {}
    waiting: SimpleQueue[Fault | None] = SimpleQueue()
    for fault in [*faults, *[None] * rigs]:
        waiting.put(fault)
    console = Console()

    def in_order() -> list[Row]:
        return [rows[fault.name] for fault in faults if fault.name in rows]

    def work(number: int) -> None:
        with RenewedRig(directory / f"rig-{number}") as rig:
            while (fault := waiting.get()) is not None:
                began = time.monotonic()
                try:
                    rows[fault.name] = rig.run(fault)
                except Exception:
                    console.print(f"{fault.name}: could not be tried\n{traceback.format_exc()}", markup=False)
                live.update(table.on_terminal(in_order()))
                if not console.is_terminal and fault.name in rows:
                    took = f"{time.monotonic() - began:.0f} s in all"
                    console.print(" | ".join([*table.cells(rows[fault.name]), took]), markup=False, soft_wrap=True)

    with Live(console=console, auto_refresh=False) as live, ThreadPoolExecutor(rigs) as pool:
        list(pool.map(work, range(rigs)))
        live.update(table.on_terminal(in_order()), refresh=True)
    return in_order()


if __name__ == "__main__":
    main()
