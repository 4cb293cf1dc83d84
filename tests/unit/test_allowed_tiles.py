"""Which files and objects may be read, by what a configuration says."""

from __future__ import annotations

from pathlib import Path

import pytest

from osml_tasks.allowed_tiles import Allowed
from osml_tasks.errors import NotAllowedError

OWN = "s3://input/jobs/"


@pytest.mark.parametrize(
    ("buckets", "location", "by", "may"),
    [
        ((), "s3://input/scenes/a.tif", "s3://input/scenes/a.vrt", True),
        ((), "s3://input/scenes/a.tif", "/roots/a.vrt", True),
        ((), "s3://other/a.tif", "s3://other/a.vrt", True),
        ((), "s3://other/a.tif", "s3://input/scenes/a.vrt", False),
        ((), "s3://other/a.tif", "/roots/a.vrt", False),
        ((), "s3://input/../other/a.tif", "s3://input/scenes/a.vrt", False),
        (("s3://other/scenes/",), "s3://other/scenes/a.tif", "s3://input/jobs/a.vrt", True),
        (("s3://other/scenes/",), "s3://other/a.tif", "s3://other/scenes/a.vrt", False),
        (("s3://other/scenes/",), "s3://input/a.tif", "s3://input/jobs/a.vrt", False),
        (("s3://other/scenes/",), "s3://input/jobs/a.tif", "s3://input/jobs/a.vrt", True),
    ],
)
def test_what_an_image_names_is_in_the_buckets_or_else_in_its_own_or_the_input_bucket(
    buckets: tuple[str, ...], location: str, by: str, may: bool
) -> None:
    allowed = Allowed((), buckets, OWN)
    if may:
        assert str(allowed.referred(location, by)) == location
    else:
        with pytest.raises(NotAllowedError, match="ASYNC_SM_TILE_BUCKETS"):
            allowed.referred(location, by)


def test_a_link_that_leads_to_itself_is_refused_as_anything_else(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(NotAllowedError, match=r"may not read .*loop"):
        Allowed((str(tmp_path / "other"),), (), OWN).tile(str(loop))


def test_another_process_is_told_all_of_it() -> None:
    allowed = Allowed(("/a", "/b"), ("s3://c/",), OWN)
    assert Allowed.from_dict(allowed.to_dict()) == allowed
