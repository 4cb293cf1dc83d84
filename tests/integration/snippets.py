"""The code in a document, run as a reader would: Python in one session, each shell block by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.integration.fleet import REPOSITORY, clean_environment
from tests.waiting import PATIENCE

_FENCE = re.compile(r"```(\w*)")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    :ivar line: where its code begins in the document, from 1.
    :ivar not_run: why it must not run; None if it may.
    """

    language: str
    line: int
    code: str
    not_run: str | None


def blocks(document: Path) -> list[Block]:
    """All fenced blocks of a document; a comment right before one says that, and why, it must not run."""
    return list(_blocks(document.read_text().splitlines()))


def _blocks(lines: list[str]) -> Iterator[Block]:
    language, start, reason = "", None, None
    for number, line in enumerate(lines, start=1):
        fence = _FENCE.match(line)
        if fence and start is None:
            language, start = fence[1], number + 1
        elif fence and start is not None:
            yield Block(language, start, "\n".join(lines[start - 1 : number - 1]), reason)
            start, reason = None, None
        elif start is None and line.strip():
            comment = _NOT_RUN.fullmatch(line.strip())
            reason = comment[1] if comment else None


def one_session(chosen: Iterable[Block], first_line: str = "") -> str:
    """Blocks as one script, each line of it where it is in the document, so that a traceback says which."""
    lines = [first_line]
    for block in chosen:
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.code.splitlines()
    return "\n".join(lines) + "\n"


def run_python(
    script: str, name: str, env: Mapping[str, str], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, in a process that knows the environment given and none of ours."""
    path = folder / f"{name}.py"
    path.write_text(script)
    return _run([sys.executable, str(path), *arguments], env, folder)


def run_shell(code: str, env: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run shell commands likewise; they stop at the first that fails."""
    return _run(["bash", "-euo", "pipefail", "-c", code], env, folder)


def _run(command: list[str], env: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    whole = clean_environment() | {"PATH": path, "PYTHONPATH": str(REPOSITORY)} | dict(env)
    return subprocess.run(command, env=whole, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
