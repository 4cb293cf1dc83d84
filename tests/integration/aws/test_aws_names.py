"""Without a proxy, where AWS's names lead to port 443: there, invocations go without boto3's layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.aws.bed import WRAPPER, Bed, bed
from tests.integration.aws.callers import put, removed
from tests.integration.aws.front import REGION
from tests.integration.endpoints import ELSEWHERE
from tests.integration.fleet import Fleet, names, write_tiles
from tests.integration.ship_scene import write_scene

pytestmark = pytest.mark.skipif(WRAPPER is None, reason="libnss-wrapper is not installed")

SWITCHES: dict[str, dict[str, str]] = {
    "plain": {},
    "FIPS": {"AWS_USE_FIPS_ENDPOINT": "true"},
    "FIPS and dual stack": {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
}


@pytest.fixture(scope="module")
def _bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """One of its own: the sweep of other workers asks for other hosts."""
    with bed(tmp_path_factory.mktemp("bed")) as running:
        yield running


@pytest.fixture(scope="module", params=SWITCHES)
def direct(request: pytest.FixtureRequest, _bed: Bed) -> Iterator[Fleet]:
    with _bed.fleet(**_bed.names(), **SWITCHES[request.param], HTTPS_PROXY=None) as running:
        yield running


def test_tiles_and_an_image(aws: Bed, direct: Fleet, tmp_path: Path) -> None:
    proxied = len(aws.proxy.hosts)
    tiles = write_tiles(direct.tiles / "tiles", {"large": {"padding": "x" * 200_000}, "small": {}})
    outcome = direct.detect(tiles, "-e", "scripted", folder=tmp_path)
    assert (outcome.status, names(outcome.features)) == (0, ["large", "small"]), outcome.err
    ships = write_scene(tmp_path / "scene.tif", width=700, height=600)
    image = put(aws, ELSEWHERE, "images/scene.tif", (tmp_path / "scene.tif").read_bytes())
    options = ("-e", "bright-objects", "--tile-size", "256", "--overlap", "64")
    outcome = direct.detect(image, *options, folder=tmp_path)
    assert (outcome.status, len(outcome.features)) == (0, ships), outcome.err
    removed(aws, image)
    assert {one.library for one in aws.front.asked} == {"boto3", "obstore", "GDAL", "runtime"}
    is_fips = "AWS_USE_FIPS_ENDPOINT" in direct.env
    assert {one.name for one in aws.front.asked if one.host.fips is not is_fips} == set()
    assert ("dualstack" in " ".join(aws.front.hosts)) is ("AWS_USE_DUALSTACK_ENDPOINT" in direct.env)
    assert len(aws.proxy.hosts) == proxied


def test_a_region_that_does_not_exist_is_said_in_one_line(aws: Bed, direct: Fleet, tmp_path: Path) -> None:
    tiles = write_tiles(direct.tiles / "nowhere", {"x": {}})
    outcome = direct.detect(tiles, "-e", "scripted", folder=tmp_path, AWS_DEFAULT_REGION="us-nowhere-9")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert "'us-nowhere-9' is no region that is known here; correct AWS_DEFAULT_REGION" in outcome.err


def test_check_names_the_host_of_each(aws: Bed, direct: Fleet) -> None:
    done = direct.run("check", "-e", "scripted")
    assert done.returncode == 0, done.stdout
    assert REGION in done.stdout
