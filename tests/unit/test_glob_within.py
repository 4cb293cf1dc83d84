"""A glob that enters nothing but what may be listed."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from osml_tasks.errors import NotAllowedError
from osml_tasks.glob_within import files_within


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("root/a/b/c.tif", "root/a/d.tif", "root/a/.hidden.tif", "root/e.tif", "root-secret/f.tif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "root"


@pytest.mark.parametrize("pattern", ["*", "**", "a/*", "**/*.tif", "a/**", "*/*/c.t?f", "[a-z]/d.tif", "x*", "e.tif"])
def test_it_finds_what_a_glob_finds(root: Path, pattern: str) -> None:
    expected = sorted({name for name in glob.glob(f"{root}/{pattern}", recursive=True) if Path(name).is_file()})
    assert files_within(f"{root}/{pattern}", lambda folder: None) == expected


@pytest.mark.parametrize("pattern", ["{root}*/**", "{root}*/*", "{root}/link/*", "{root}/*/f.tif", "{root}/*/*"])
def test_it_enters_nothing_that_may_not_be_listed(root: Path, pattern: str) -> None:
    (root / "link").symlink_to(f"{root}-secret")
    entered: list[Path] = []

    def enter(folder: str) -> None:
        if not Path(folder).resolve().is_relative_to(root):
            raise NotAllowedError("not there")
        entered.append(Path(folder).resolve())

    try:
        found = files_within(pattern.format(root=root), enter)
    except NotAllowedError:
        found = []
    assert all(path.is_relative_to(root) for path in entered)
    assert not any("secret" in name for name in found)


def test_two_stars_follow_no_links(root: Path) -> None:
    (root / "link").symlink_to(f"{root}-secret")
    assert not any("f.tif" in name for name in files_within(f"{root}/**", lambda folder: None))
