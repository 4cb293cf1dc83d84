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


@pytest.mark.parametrize("figure", ["lost", "doubled", "left", "ended"])
def test_one_feature_lost_or_doubled_one_object_left_and_one_process_ended_are_too_many(figure: str) -> None:
    fault = Fault("any", quick=False, wastes=True, inject=never)
    assert fault.is_survived(GOOD)
    assert not fault.is_survived(replace(GOOD, **{figure: 1}))


def test_only_some_faults_may_cost_invocations() -> None:
    wasted = replace(GOOD, wasted=1)
    assert Fault("any", quick=False, wastes=True, inject=never).is_survived(wasted)
    assert not Fault("any", quick=False, wastes=False, inject=never).is_survived(wasted)


def test_rows_take_the_place_of_their_old_ones(tmp_path: Path) -> None:
    fault = all_faults()[0].name
    document = tmp_path / "reliability.md"
    old = "| fault | times | note |\n| --- | --: | --- |\n| all is well | 7 | old |\n| no such fault | 1 |  |\n"
    document.write_text(f"before\n{table.BEGIN}\n{old}| {fault} | 3 | kept |\n{table.END}\nafter\n")
    for _ in range(2):
        table.write(document, [GOOD])
    lines = document.read_text().splitlines()
    assert (lines[:2], lines[-2:]) == (["before", table.BEGIN], [table.END, "after"])
    kept, new = lines[4:-2]
    assert kept == f"| {fault} | 3 | — | — | — | — | — | — | — | kept | — |"
    assert new.startswith("| all is well | 2 | 300 | 0 | 0 | 0 | 0 | 0 | 2 |  | 20")


def test_the_document_names_only_faults_that_there_are() -> None:
    text = Path("docs/reliability.md").read_text().partition(table.BEGIN)[2].partition(table.END)[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    assert set(rows[2:]) <= {fault.name for fault in all_faults()}
