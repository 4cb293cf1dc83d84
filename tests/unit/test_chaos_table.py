"""What faults cost: when that is survived, and how it gets into the document."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import table
from tests.chaos.faults import Fault, all_faults
from tests.chaos.row import Row

GOOD = Row("all is well", times=2, tiles=300, lost=0, doubled=0, wasted=0, left=0, seconds_until_work=1.2)


def never(rig: object) -> Row:
    raise AssertionError("not to be tried")


@pytest.mark.parametrize("figure", ["lost", "doubled", "left"])
def test_one_feature_lost_or_doubled_and_one_object_left_are_too_many(figure: str) -> None:
    fault = Fault("any", quick=False, wastes=True, inject=never)
    assert fault.is_survived(GOOD)
    assert not fault.is_survived(replace(GOOD, **{figure: 1}))


def test_only_some_faults_may_cost_invocations() -> None:
    wasted = replace(GOOD, wasted=1)
    assert Fault("any", quick=False, wastes=True, inject=never).is_survived(wasted)
    assert not Fault("any", quick=False, wastes=False, inject=never).is_survived(wasted)


def test_the_table_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    document = tmp_path / "reliability.md"
    document.write_text(f"before\n{table.BEGIN}\n| old |\n{table.END}\nafter\n")
    for _ in range(2):
        table.write(document, [GOOD])
    lines = document.read_text().splitlines()
    assert (lines[:2], lines[-2:]) == (["before", table.BEGIN], [table.END, "after"])
    assert lines.count("| all is well | 2 | 300 | 0 | 0 | 0 | 0 | 2 |  |") == 1
    assert "| old |" not in lines


def test_the_document_names_only_faults_that_there_are() -> None:
    text = Path("docs/reliability.md").read_text().partition(table.BEGIN)[2].partition(table.END)[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    assert set(rows[2:]) <= {fault.name for fault in all_faults()}
