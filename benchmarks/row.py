"""A row of the table: a figure, what was measured, its bar, and whether it is met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

COLUMNS = ("figure", "measured", "bar", "met")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    :ivar measured: the figure as text, with what it is made of.
    :ivar bar: what it has to be, as text.
    :ivar met: whether it is.
    """

    figure: str
    measured: str
    bar: str
    met: bool

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The row as texts, in the order of the columns."""
        return (self.figure, self.measured, self.bar, "yes" if self.met else "NO")


def at_most(figure: str, value: float, bar: float, measured: str, unit: str = "") -> Row:
    """A figure that has to be small."""
    return Row(figure, measured, f"at most {bar:g}{unit}", value <= bar)


def at_least(figure: str, value: float, bar: float, measured: str, unit: str = "") -> Row:
    """A figure that has to be large."""
    return Row(figure, measured, f"at least {bar:g}{unit}", value >= bar)


def on_terminal(rows: Iterable[Row]) -> Table:
    """The table for people who watch."""
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row.cells, style=None if row.met else "red")
    return table


def in_markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a document."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
