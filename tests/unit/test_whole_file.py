"""Files that appear whole or not at all, and streams, which are no files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from osml_tasks.whole_file import is_stream, written_whole


def test_a_file_is_replaced_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with written_whole(path) as file:
        file.write(b"after")
        file.flush()
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("there", [True, False])
def test_nothing_changes_if_it_does_not_come_to_its_end(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "out"
    if there:
        path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as file:
        file.write(b"after")
        raise KeyboardInterrupt
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"before"] * there


def test_what_is_no_file_stays_and_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    assert [is_stream(path) for path in (tmp_path / "pipe", link, tmp_path / "none")] == [True, False, False]
    with (tmp_path / "file").open("wb+") as opened:
        path = Path(f"/proc/self/fd/{opened.fileno()}")
        assert is_stream(path)
        with written_whole(path) as file:
            file.write(b"through")
        assert opened.read() == b"through"
