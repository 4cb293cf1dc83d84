"""The files in a document: fenced blocks whose first line is a comment that names where they belong."""

from __future__ import annotations

import re
from pathlib import Path

from tests.integration.snippets import blocks

_NAMED = re.compile(r"# (\S+)")


def files(document: Path) -> dict[str, str]:
    """The text of each file, by its path."""
    found = {}
    for block in blocks(document):
        name = _NAMED.fullmatch(block.code.split("\n", 1)[0])
        if name and block.language in ("ini", "yaml"):
            found[name[1]] = block.code
    return found


def settings(text: str) -> dict[str, str]:
    """``NAME=value`` lines, as systemd reads them from a file."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)
