"""The table of all faults: on a terminal, and in the document."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from pathlib import Path

from rich.table import Table

from tests.chaos.faults import all_faults
from tests.chaos.row import Row
from tests.integration.fleet import REPOSITORY

COLUMNS = ("fault", "times", "tiles", "lost", "doubled", "wasted", "left", "ended", "s until work", "note")
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
_HEAD = (*COLUMNS, "measured")
_NOT_KNOWN = "—"


def cells(row: Row) -> list[str]:
    """A row as texts, in the order of the columns."""
    seconds = _NOT_KNOWN if row.seconds_until_work is None else str(ceil(row.seconds_until_work))
    figures = (row.times, row.tiles, row.lost, row.doubled, row.wasted, row.left, row.ended)
    return [row.fault, *map(str, figures), seconds, row.note]


def on_terminal(rows: Iterable[Row]) -> Table:
    """The table for people who watch."""
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row), style=None if row.is_whole else "red")
    return table


def write(document: Path, rows: Sequence[Row]) -> None:
    """Put rows into the table that a document has between its markers, in the place of what it has of these faults.

    Rows of faults that were not tried stay, with what was counted at their time; those of no fault go.
    """
    text = document.read_text()
    before, _, rest = text.partition(BEGIN)
    old, found, after = rest.partition(END)
    assert found, f"{document} has no {BEGIN} and {END}"
    measured = _measured()
    known = _read(old) | {row.fault: dict(zip(_HEAD, [*cells(row), measured], strict=True)) for row in rows}
    names = dict.fromkeys([*(fault.name for fault in all_faults()), *(row.fault for row in rows)])
    lines = [[known[name].get(column, _NOT_KNOWN) for column in _HEAD] for name in names if name in known]
    head = [_HEAD, ["---", *["--:"] * 8, "---", "---"]]
    table = "\n".join(f"| {' | '.join(line)} |" for line in [*head, *lines])
    document.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def _measured() -> str:
    """When, and on what."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.strip()
    return f"{datetime.now(UTC):%Y-%m-%d}, {commit}"


def _read(table: str) -> Mapping[str, dict[str, str]]:
    """The rows of a table by their faults, each as its cells by their columns."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    head, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines) if lines else [[]]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows[1:]}
