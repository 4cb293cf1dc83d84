"""The documents say what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import AliasChoices

from osml_tasks.cli import _COMMANDS
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.jobs import JobState, Reason

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("option", AsyncEndpointConfig.model_fields)
def test_each_option_stands_in_the_table_with_its_variables_and_default(option: str) -> None:
    field = AsyncEndpointConfig.model_fields[option]
    assert isinstance(field.validation_alias, AliasChoices)
    table = (ROOT / "docs/configuration.md").read_text()
    (row,) = [line for line in table.splitlines() if line.startswith("|") and f"| `{option}` |" in line]
    assert all(f"`{variable}`" in row for variable in field.validation_alias.choices)
    if isinstance(field.default, int | float) and not isinstance(field.default, bool):
        assert f"| {field.default:g} |" in row.replace("128000", f"{128000:g}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert target.startswith("https://") or (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    text = document.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)osml-tasks ([a-z]+)", text, re.MULTILINE)) <= set(_COMMANDS)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= targets


def test_states_and_reasons_are_listed() -> None:
    text = (ROOT / "docs/command_line.md").read_text()
    assert all(f"`{word.value}`" in text for word in (*JobState, *Reason))
