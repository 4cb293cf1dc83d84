"""The table of all faults: on a terminal, and in the document."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from math import ceil
from pathlib import Path

from rich.table import Table

from tests.chaos.row import Row
from tests.integration.fleet import REPOSITORY

COLUMNS = ("fault", "times", "tiles", "lost", "doubled", "wasted", "left", "s until work", "note")
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"


def cells(row: Row) -> list[str]:
    """A row as texts, in the order of the columns."""
    seconds = "—" if row.seconds_until_work is None else str(ceil(row.seconds_until_work))
    figures = (row.times, row.tiles, row.lost, row.doubled, row.wasted, row.left)
    return [row.fault, *map(str, figures), seconds, row.note]


def on_terminal(rows: Iterable[Row]) -> Table:
    """The table for people who watch."""
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row), style=None if row.is_whole else "red")
    return table


def in_markdown(rows: Sequence[Row]) -> str:
    """The table for the document, with when and on what it was measured."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.strip()
    head = [f"Measured on {datetime.now(UTC):%Y-%m-%d}, commit {commit}:", ""]
    lines = [COLUMNS, ["---", *["--:"] * 7, "---"], *map(cells, rows)]
    return "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines)])


def write(document: Path, rows: Sequence[Row]) -> None:
    """Put the table in the place of the one that a document has between its markers."""
    text = document.read_text()
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"{document} has no {BEGIN} and {END}"
    document.write_text(f"{before}{BEGIN}\n{in_markdown(rows)}\n{END}{after}")
