"""The documents say what is so."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import AliasChoices

from osml_tasks.cli import _COMMANDS
from osml_tasks.cli.image_options import add_image_options
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.imagery.cutting import COMPRESSIONS, TileFormat
from osml_tasks.jobs import JobState, Reason

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "compose/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("option", AsyncEndpointConfig.model_fields)
def test_each_option_stands_in_the_table_with_its_variables_and_default(option: str) -> None:
    field = AsyncEndpointConfig.model_fields[option]
    assert isinstance(field.validation_alias, AliasChoices)
    table = (ROOT / "docs/configuration.md").read_text()
    (row,) = [line for line in table.splitlines() if line.startswith("|") and f"| `{option}` |" in line]
    assert all(f"`{variable}`" in row for variable in field.validation_alias.choices)
    if isinstance(field.default, int | float) and not isinstance(field.default, bool):
        assert any(f"| {default} |" in row for default in (field.default, f"{field.default:g}"))


def test_each_option_of_images_stands_in_the_table_with_its_default() -> None:
    rows = [line for line in (ROOT / "docs/command_line.md").read_text().splitlines() if line.startswith("| `--")]
    options = add_image_options(click.command(lambda **given: None)).params
    assert len(options) > 15
    for option in options:
        assert isinstance(option, click.Option)
        (row,) = [line for line in rows if re.match(rf"\| .*`{option.opts[0]}(?![\w-])", line)]
        default = re.search(r"\[default: ([\w.]+)\]", option.help or "")
        assert default is None or default[1] in row.split("|")[2], row


@pytest.mark.parametrize("tile_format", TileFormat)
def test_each_format_of_tiles_stands_in_the_table_with_its_compressions(tile_format: TileFormat) -> None:
    lines = (ROOT / "docs/images.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith(f"| `{tile_format}`")]
    assert re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", row.split("|")[4])) == [*COMPRESSIONS[tile_format]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        assert target.startswith("https://") or (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    text = document.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)osml-tasks ([a-z]+)", text, re.MULTILINE)) <= set(_COMMANDS)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_options_in_the_security_guide_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = dict(re.findall(r"^(ASYNC_SM_\w+)=(\S+)$", (ROOT / "docs/security.md").read_text(), re.MULTILINE))
    assert len(shown) == 4
    monkeypatch.setattr("os.environ", shown | {"ARTIFACT_BUCKET": "one", "ASYNC_SM_OUTPUT_BUCKET": "two"})
    taken = AsyncEndpointConfig()
    assert {name: taken.environment[name] for name in shown} == shown


def test_states_and_reasons_are_listed() -> None:
    text = (ROOT / "docs/command_line.md").read_text()
    assert all(f"`{word.value}`" in text for word in (*JobState, *Reason))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_sections_lead_to_one(document: Path) -> None:
    for target, section in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text()):
        text = ((document.parent / target) if target else document).read_text()
        titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert section in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def _templates() -> Iterator[str]:
    """Each text that the program may print, with an ellipsis for what differs from case to case."""
    for module in (ROOT / "osml_tasks").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%\w", "…", node.value)


def test_messages_in_the_troubleshooting_guide_are_the_programs_own() -> None:
    rows = [line for line in (ROOT / "docs/troubleshooting_guide.md").read_text().splitlines() if line[:1] == "|"]
    shown = [text for row in rows for text in re.findall(r"`([^`]+)`", row.split("|")[1])]
    messages = [text for text in shown if "…" in text or " " in text]
    assert len(messages) > 40
    # Quotes around what differs, and its format, are left out on both sides.
    known = {re.sub(r"…+", "…", text.replace("'…'", "…").replace('"', "'")) for text in _templates()}
    unknown = [text for text in messages if not any(text in template for template in known)]
    assert unknown == []


def _coverage() -> list[list[str]]:
    lines = (ROOT / "docs/spec-coverage.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if row[0] != "asked for" and set(row[0]) != {"-"}]


def test_the_coverage_table_has_no_empty_cell() -> None:
    rows = _coverage()
    assert len(rows) > 50
    assert [row for row in rows if len(row) != 3 or not all(row)] == []


def test_files_and_tests_in_the_coverage_table_exist() -> None:
    for _, where, shown in _coverage():
        for path in re.findall(r"`([\w./-]+/[\w./-]+|[A-Z]\w+\.md|LICENSE)`", f"{where} {shown}"):
            assert (ROOT / path).exists(), path
        for path, test in re.findall(r"`([\w/]+\.py)::(\w+)`", shown):
            assert f"def {test}(" in (ROOT / path).read_text(), (path, test)
        assert "::" in shown or "benchmarks.main_job" in shown or "—" in shown, shown


def test_the_dependencies_asked_for_are_declared() -> None:
    wanted = {"boto3": (1, 26), "geojson": (2, 5), "aws-embedded-metrics": (2, 0)}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = dict(text.split(">=") for text in declared)
    for name, version in wanted.items():
        assert tuple(map(int, lowest[name].split("."))) >= version
