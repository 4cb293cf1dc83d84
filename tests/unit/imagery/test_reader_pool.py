"""Images read by processes of their own: the same answers, and nothing that a stranger's image could do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import boto3
import numpy as np
import pytest
import rasterio

from osml_tasks.allowed_tiles import Allowed
from osml_tasks.errors import ExtensionError, ImageReadError, ImageTooCostlyError, NotAllowedError
from osml_tasks.imagery.cutting import Cutting, TileFormat
from osml_tasks.imagery.datasets import Datasets
from osml_tasks.imagery.image import Image
from osml_tasks.imagery.limits import Limits
from osml_tasks.imagery.reader import Reader
from osml_tasks.imagery.reader_pool import ReaderPool
from osml_tasks.imagery.window import Window
from tests.integration.fleet import wait_until
from tests.unit.imagery.drawn_images import noise, write
from tests.unit.imagery.test_datasets import vrt
from tests.unit.imagery.test_georeference import RPCS, draw, elevations

SESSION = boto3.Session("made-up", "made-up", region_name="us-east-1")
CUTTING = Cutting(64, 0, TileFormat.GTIFF)
WINDOW = Window(y=10, x=20, width=64, height=64)


@contextmanager
def pool_of(root: Path | None = None, **limits: Any) -> Iterator[ReaderPool]:
    """Of somebody who may read one directory, and what lies in the bucket ``mine``."""
    allowed = None if root is None else Allowed((str(root),), (), "s3://mine/in/")
    pool = ReaderPool(SESSION, Limits(**limits), allowed)
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture(scope="module")
def pool() -> Iterator[ReaderPool]:
    with pool_of() as pool:
        yield pool


@pytest.fixture
def scene(tmp_path: Path) -> str:
    return str(write(tmp_path / "scene.tif", noise(3, 200, 300), crs="EPSG:4326"))


def test_answers_are_those_of_a_reader_in_this_process(pool: ReaderPool, scene: str) -> None:
    here = Reader(Datasets(SESSION))
    assert pool.size(scene) == here.size(scene) == (300, 200)
    image = pool.describe(scene, "scene", CUTTING)
    assert image == here.describe(scene, "scene", CUTTING)
    assert pool.cut(scene, image, WINDOW, CUTTING) == here.cut(scene, image, WINDOW, CUTTING)
    np.testing.assert_array_equal(pool.overview(scene, [1]).pixels, here.overview(scene, [1]).pixels)


def test_a_tile_without_data_is_none(pool: ReaderPool, tmp_path: Path) -> None:
    path = str(write(tmp_path / "empty.tif", np.zeros((1, 100, 100), np.uint8), nodata=0))
    assert pool.cut(path, pool.describe(path, "empty", CUTTING), WINDOW, CUTTING) is None


@pytest.mark.parametrize("as_vrt", [False, True])
def test_a_height_model_is_read_over_there(pool: ReaderPool, tmp_path: Path, as_vrt: bool) -> None:
    image, plain = draw(tmp_path / "rpcs.tif", rpcs=RPCS), elevations(tmp_path / "dem.tif")
    dem = tmp_path / "dem.vrt"
    rasterio.shutil.copy(plain, dem, driver="VRT")
    georeference = pool.describe(str(image), "a", CUTTING, dem=str(dem if as_vrt else plain)).georeference
    assert georeference is not None
    x, y = np.array([1.0, 30.0, np.nan]), np.array([2.0, 40.0, 1.0])
    here = Reader(Datasets(SESSION)).transformer(georeference)
    np.testing.assert_array_equal(pool.transformer(georeference).to_lonlat(x, y), here.to_lonlat(x, y))


def test_many_threads_get_each_its_own_answer(pool: ReaderPool, scene: str) -> None:
    image, here = pool.describe(scene, "scene", CUTTING), Reader(Datasets(SESSION))
    windows = [Window(y=y, x=x, width=64, height=64) for y in range(0, 136, 20) for x in range(0, 236, 20)]
    with ThreadPoolExecutor(16) as threads:
        tiles = threads.map(lambda window: pool.cut(scene, image, window, CUTTING), windows)
        assert list(tiles) == [here.cut(scene, image, window, CUTTING) for window in windows]
    assert len(pool.pids) == 2


def test_errors_come_across(pool: ReaderPool, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("no image")
    with pytest.raises(ImageReadError, match=r"a\.tif' cannot be read: .*not recognized"):
        pool.size(str(tmp_path / "a.tif"))


def test_a_process_knows_no_secret(scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:a-secret@broker")
    with pool_of() as pool:
        pool.size(scene)
        (pid,) = pool.pids
        assert b"a-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert Path(f"/proc/{pid}/cwd").resolve() == Path("/")


def one_block(path: Path, side: int) -> str:
    """A small file of one block of many pixels."""
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", blockxsize=side, blockysize=side, compress="DEFLATE", **profile) as image:
        image.write(np.ones((1, side, side), np.uint8))
    return str(path)


def known(path: str, width: int, height: int) -> Image:
    return Image(path, "GTIFF", width, height, 1, "uint8", (1,), None, None, None)


def test_a_block_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = one_block(tmp_path / "a.tif", 20_000)
    assert Path(path).stat().st_size < 1_000_000
    with pool_of() as pool:
        with pytest.raises(ImageTooCostlyError, match=r"400,000,000 bytes each.*ASYNC_SM_MAX_BLOCK_BYTES"):
            pool.describe(path, "a", CUTTING)
        assert resident(pool.pids[0]) < 200_000_000


def resident(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_the_kernel_holds_the_memory(tmp_path: Path, scene: str) -> None:
    path = one_block(tmp_path / "a.tif", 20_000)
    with pool_of(block_bytes=2**40, memory_bytes=2**28) as pool:
        with pytest.raises((ImageReadError, ImageTooCostlyError)):
            pool.cut(path, known(path, 20_000, 20_000), WINDOW, CUTTING)
        assert all(resident(pid) < 2**28 + 150_000_000 for pid in pool.pids)
        assert pool.size(scene) == (300, 200)


def drawn_often(path: Path, times: int) -> str:
    """A VRT of one image, drawn on the same place again and again."""
    side = 2000
    profile = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "DEFLATE"}
    image = write(path.with_suffix(".tif"), np.ones((1, side, side), np.uint8), **profile)
    box = f'xOff="0" yOff="0" xSize="{side}" ySize="{side}"'
    source = (
        f'<SimpleSource><SourceFilename relativeToVRT="1">{image.name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SourceProperties RasterXSize="{side}" RasterYSize="{side}" DataType="Byte" BlockXSize="256" '
        f'BlockYSize="256"/><SrcRect {box}/><DstRect {box}/></SimpleSource>'
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><VRTRasterBand dataType="Byte" band="1">'
        f"{source * times}</VRTRasterBand></VRTDataset>"
    )
    return str(path)


def test_a_tile_takes_so_much_cpu_and_no_more(tmp_path: Path, scene: str) -> None:
    path = drawn_often(tmp_path / "a.vrt", 15_000)
    with pool_of(seconds=1) as pool:
        with pytest.raises((ImageTooCostlyError, ImageReadError), match="ASYNC_SM_MAX_CUT_SECONDS"):
            pool.cut(path, known(path, 2000, 2000), Window(0, 0, 2000, 2000), Cutting(2000, 0, TileFormat.GTIFF))
        assert pool.size(scene) == (300, 200)


def test_what_does_not_answer_is_ended(scene: str) -> None:
    with pool_of(seconds=0.5) as pool:
        pool.size(scene)
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ImageReadError, match=r"was not read within 1 s.*ASYNC_SM_MAX_CUT_SECONDS"):
            pool.size(scene)
        assert pool.size(scene) == (300, 200)
        assert pid not in pool.pids


def test_one_that_is_gone_is_replaced(scene: str) -> None:
    with pool_of() as pool:
        pool.size(scene)
        (pid,) = pool.pids
        os.kill(pid, signal.SIGTERM)
        assert pool.size(scene) == (300, 200)
        assert pool.pids == [pid]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2])
        assert pool.size(scene) == (300, 200)
        assert pid not in pool.pids


_PARENT = """
import sys, time, boto3
from osml_tasks.imagery.limits import Limits
from osml_tasks.imagery.reader_pool import ReaderPool
pool = ReaderPool(boto3.Session("a", "b", region_name="us-east-1"), Limits())
pool.size(sys.argv[1])
print(*pool.pids, flush=True)
time.sleep(60)
"""


def test_no_process_outlives_its_parent(scene: str) -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT, scene], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
    wait_until(lambda: not Path(f"/proc/{child}/cwd").exists())


class _Counted(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.hits.append(self.path)  # type: ignore[attr-defined]
        self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - as the server calls it

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _Counted) as server:
        server.hits = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def wms(url: str) -> str:
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service><DataWindow>'
        "<UpperLeftX>-180</UpperLeftX><UpperLeftY>90</UpperLeftY><LowerRightX>180</LowerRightX><LowerRightY>-90"
        "</LowerRightY><SizeX>400</SizeX><SizeY>300</SizeY></DataWindow><Projection>EPSG:4326</Projection>"
        "<BandsCount>1</BandsCount></GDAL_WMS>"
    )


def raw(path: Path, source: str) -> Path:
    path.write_text(
        '<VRTDataset rasterXSize="400" rasterYSize="1"><VRTRasterBand dataType="Byte" band="1" '
        f'subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="0">{source}</SourceFilename><ImageOffset>0'
        "</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>400</LineOffset></VRTRasterBand></VRTDataset>"
    )
    return path


def with_overviews(path: Path, at: str) -> Path:
    write(path, noise(1, 300, 400))
    with rasterio.open(path, "r+") as image:
        image.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=at)
    return path


def warped(path: Path, source: str) -> Path:
    path.write_text(
        '<VRTDataset rasterXSize="400" rasterYSize="300" subClass="VRTWarpedDataset"><VRTRasterBand dataType="Byte" '
        'band="1" subClass="VRTWarpedRasterBand"/><GDALWarpOptions><SourceDataset relativeToVRT="0">'
        f"{escape(source)}</SourceDataset><Transformer/></GDALWarpOptions></VRTDataset>"
    )
    return path


STRANGE = ["raw", "raw in a warped one", "raw as a source", "raw as .tif", "a URL as a source", "a URL's overviews"]
STRANGE += [
    "WMS as a source",
    "WMS warped",
    "WMS as .tif",
    "nested nine times",
    "a source elsewhere",
    "a loop",
    "a pipe",
]


def strange(folder: Path, kind: str, url: str) -> str:  # noqa: PLR0912 - one a kind
    """An image that leads elsewhere."""
    secret = raw(folder / "raw.tif", "/proc/self/environ")
    (folder / "wms.tif").write_text(wms(url))
    match kind:
        case "raw":
            path = raw(folder / "a.vrt", "/proc/self/environ")
        case "raw in a warped one":
            path = warped(folder / "a.vrt", secret.read_text())
        case "raw as a source":
            path = vrt(folder / "a.vrt", str(secret))
        case "raw as .tif":
            path = secret
        case "a URL as a source":
            path = vrt(folder / "a.vrt", f"/vsicurl/{url}/a.tif")
        case "a URL's overviews":
            path = with_overviews(folder / "a.tif", f"/vsicurl/{url}/a.tif")
        case "WMS as a source":
            path = vrt(folder / "a.vrt", str(folder / "wms.tif"))
        case "WMS warped":
            path = warped(folder / "a.vrt", wms(url))
        case "WMS as .tif":
            path = folder / "wms.tif"
        case "nested nine times":
            path = write(folder / "0.tif", noise(1, 300, 400))
            for depth in range(9):
                path = vrt(folder / f"{depth}.vrt", str(path))
        case "a source elsewhere":
            path = vrt(folder / "a.vrt", str(write(folder.parent / "elsewhere.tif", noise(1, 300, 400))))
        case "a loop":
            path = folder / "a.tif"
            path.symlink_to(path)
        case _:
            path = folder / "a.tif"
            os.mkfifo(path)
    return str(path)


@pytest.mark.parametrize("kind", STRANGE)
def test_strange_images_give_no_pixels_and_call_nobody(tmp_path: Path, web: HTTPServer, kind: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    path = strange(folder, kind, f"http://127.0.0.1:{web.server_port}")
    image = known(path, 400, 1 if kind.startswith("raw") else 300)
    with pool_of(folder) as pool:
        for ask in (
            lambda: pool.cut(path, image, Window(0, 0, 64, 1), CUTTING),
            lambda: pool.describe(path, path, CUTTING).crs,
            lambda: pool.overview(path, [1]),
        ):
            with pytest.raises((NotAllowedError, ImageReadError)) as refused:
                ask()
            assert str(refused.value).isprintable()
    assert web.hits == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["raw", "WMS", "elsewhere"])
def test_a_source_that_is_swapped_after_it_was_looked_at_leads_nowhere(
    tmp_path: Path, web: HTTPServer, kind: str
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    source = write(folder / "source.tif", noise(1, 300, 400))
    mosaic = str(vrt(folder / "a.vrt", str(source)))
    with pool_of(folder) as pool:
        image = pool.describe(mosaic, mosaic, CUTTING)
        assert pool.cut(mosaic, image, Window(0, 0, 64, 64), CUTTING)
        source.unlink()
        if kind == "raw":
            raw(source, "/proc/self/environ")
        elif kind == "WMS":
            source.write_text(wms(f"http://127.0.0.1:{web.server_port}"))
        else:
            source.symlink_to(write(tmp_path / "elsewhere.tif", noise(1, 300, 400)))
        with pytest.raises((NotAllowedError, ImageReadError)):
            # For another job, which opens everything anew.
            pool.cut(mosaic, image, Window(0, 0, 64, 64), CUTTING, job="other")
    assert web.hits == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["raw as .tif", "WMS as .tif", "a URL as a source", "a source elsewhere", "raw"])
def test_a_height_model_is_held_to_the_same(tmp_path: Path, web: HTTPServer, kind: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    dem = strange(folder, kind, f"http://127.0.0.1:{web.server_port}")
    image = str(draw(folder / "rpcs.tif", rpcs=RPCS))
    with pool_of(folder) as pool:
        with pytest.raises(ExtensionError):
            pool.describe(image, image, CUTTING, dem=dem)
        georeference = pool.describe(image, image, CUTTING).georeference
        assert georeference is not None
        over_it = type(georeference).from_dict(georeference.to_dict() | {"dem": dem})
        with pytest.raises(ExtensionError):
            pool.transformer(over_it).to_lonlat(np.array([1.0]), np.array([1.0]))
    assert web.hits == []  # type: ignore[attr-defined]
