"""The code in the documents runs: Python of a document in one session, shell of the guides block by block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.documented import documented
from tests.integration.fleet import REPOSITORY, Fleet, wait_until
from tests.integration.snippets import Block, blocks, one_session, run_python, run_shell

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
GUIDES = [REPOSITORY / f"docs/{name}_guide.md" for name in ("async_endpoint", "troubleshooting", "performance_tuning")]
IN_SHELL = [*GUIDES, *(REPOSITORY / f"docs/{name}.md" for name in ("operations", "security", "images"))]
# Where the documents have imagery of their own in a bucket, and what it is.
IMAGERY = {"imagery/harbour.png": "tiles/harbour_r00_c00.png", "scenes/scene.tif": "scene.tif"}


def _in(document: Path, *languages: str) -> list[Block]:
    return [block for block in blocks(document) if block.language in languages and block.not_run is None]


def _named(path: Path) -> str:
    return path.name


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with documented(tmp_path_factory.mktemp("documents"), workers=True) as made:
        for key, file in IMAGERY.items():
            made.s3.put_object(Bucket="my-input-bucket", Key=key, Body=(made.tiles / file).read_bytes())
        yield made


@pytest.fixture
def emptied(named: Fleet) -> Iterator[Fleet]:
    """A document that leaves an object behind has failed; of a cancelled job something may come late."""
    own = [f"my-input-bucket/{key}" for key in IMAGERY]
    yield named
    if named.objects() != own:
        run_shell("osml-tasks cleanup --force", named.env, named.tiles)
    wait_until(lambda: named.objects() == own)


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if _in(path, "python")], ids=_named)
def test_python_runs_from_top_to_bottom(emptied: Fleet, document: Path) -> None:
    done = run_python(one_session(_in(document, "python")), document.stem, emptied.env, emptied.tiles)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("document", "block"),
    [
        pytest.param(path, block, id=f"{path.stem}-{block.line}")
        for path in IN_SHELL
        for block in _in(path, "sh", "bash")
    ],
)
def test_shell_runs(emptied: Fleet, document: Path, block: Block) -> None:
    done = run_shell(block.code, emptied.env, emptied.tiles)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if _in(path, "json")], ids=_named)
def test_json_parses(document: Path) -> None:
    assert all(json.loads(block.code) for block in _in(document, "json"))


@pytest.mark.parametrize("document", GUIDES, ids=_named)
def test_each_block_of_a_guide_has_a_language_and_a_reason_not_to_run(document: Path) -> None:
    found = blocks(document)
    assert found
    assert {block.language for block in found} <= {"python", "sh", "text"}
    assert all(len(block.not_run) > 10 for block in found if block.not_run is not None)
