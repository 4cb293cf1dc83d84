"""What of a VRT is understood; all else is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.transform import Affine

from osml_tasks.errors import NotAllowedError
from osml_tasks.imagery.datasets import Datasets
from osml_tasks.imagery.vrt import MOST_BYTES, MOST_SOURCES, Vrt
from tests.unit.imagery.drawn_images import noise, write

SOURCE = (
    '<SimpleSource><SourceFilename relativeToVRT="{relative}">{name}</SourceFilename><SourceBand>1</SourceBand>'
    '<SourceProperties RasterXSize="40" RasterYSize="30" DataType="Byte" BlockXSize="40" BlockYSize="30"/>'
    '<SrcRect xOff="0" yOff="0" xSize="40" ySize="30"/><DstRect xOff="0" yOff="0" xSize="40" ySize="30"/>'
    "</SimpleSource>"
)
PLAIN = SOURCE.format(relative=0, name="/a.tif")


def text(band: str = PLAIN, more: str = "", attributes: str = "", of_band: str = "") -> bytes:
    return (
        f'<VRTDataset rasterXSize="40" rasterYSize="30"{attributes}>{more}<VRTRasterBand dataType="Byte" band="1"'
        f"{of_band}>{band}</VRTRasterBand></VRTDataset>"
    ).encode()


def read(content: bytes, location: str = "/images/a.vrt") -> Vrt:
    return Vrt(content, location, lambda source: source)


REFUSED = {
    "no XML": (b"II*\0", "is no plain XML"),
    "XML of another kind": (b"<GDAL_WMS/>", "is a 'GDAL_WMS'"),
    "entities": (b'<!DOCTYPE a [<!ENTITY b "c">]>' + text(), "is no plain XML"),
    "an external entity": (b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + text(), "is no plain XML"),
    "a warped VRT": (text(attributes=' subClass="VRTWarpedDataset"'), "subClass='VRTWarpedDataset'"),
    "a pansharpened VRT": (text(attributes=' subClass="VRTPansharpenedDataset"'), "VRTPansharpenedDataset"),
    "a raw band": (
        text("<SourceFilename>/proc/self/environ</SourceFilename>", of_band=' subClass="VRTRawRasterBand"'),
        "subClass='VRTRawRasterBand'",
    ),
    "a raw band by its elements": (text("<SourceFilename>/proc/self/environ</SourceFilename>"), "'SourceFilename'"),
    "a derived band": (text(of_band=' subClass="VRTDerivedRasterBand"'), "VRTDerivedRasterBand"),
    "overviews of a band": (text("<Overview><SourceFilename>/x.tif</SourceFilename></Overview>"), "'Overview'"),
    "a list of overviews": (text(more="<OverviewList>2</OverviewList>"), "'OverviewList'"),
    "groups": (text(more="<Group/>"), "'Group'"),
    "a filtered source": (text(PLAIN.replace("SimpleSource", "KernelFilteredSource")), "'KernelFilteredSource'"),
    "options of a source": (
        text(PLAIN.replace("<SourceBand>", '<OpenOptions><OOI key="a">b</OOI></OpenOptions><SourceBand>')),
        "'OpenOptions'",
    ),
    "XML in a source's name": (text(PLAIN.replace("/a.tif", "<VRTDataset/>")), "not one file by name"),
    "XML as a source's name": (text(PLAIN.replace("/a.tif", "&lt;GDAL_WMS/&gt;")), "neither a path"),
    "two names": (text(PLAIN.replace("<SourceBand>", "<SourceFilename>/b.tif</SourceFilename><SourceBand>")), "one"),
    "no name": (text(PLAIN.replace("/a.tif", "")), "not one file by name"),
    "a part of a file": (text(PLAIN.replace("/a.tif", "GTIFF_DIR:1:/a.tif")), "neither a path"),
    "a VRT by connection": (text(PLAIN.replace("/a.tif", "vrt:///a.tif?bands=1")), "neither a path"),
    "a URL": (text(PLAIN.replace("/a.tif", "http://127.0.0.1/a.tif")), "neither a path"),
    "a URL by GDAL": (text(PLAIN.replace("/a.tif", "/vsicurl/http://127.0.0.1/a.tif")), "neither a path"),
    "an archive": (text(PLAIN.replace("/a.tif", "/vsizip//a.zip/a.tif")), "neither a path"),
    "memory": (text(PLAIN.replace("/a.tif", "MEM:::DATAPOINTER=1")), "neither a path"),
    "a file system by a way round": (text(PLAIN.replace("/a.tif", "/x/../vsicurl/http://h/a.tif")), "neither a path"),
    "another VRT": (text(PLAIN.replace("/a.tif", "/b.VRT")), "another VRT"),
    "a mask of something else": (text(more="<MaskBand><Overview/></MaskBand>"), "'Overview'"),
    "a raw mask": (
        text(more='<MaskBand><VRTRasterBand dataType="Byte" subClass="VRTRawRasterBand"/></MaskBand>'),
        "VRTRawRasterBand",
    ),
    "a box without numbers": (text(PLAIN.replace('DstRect xOff="0"', 'DstRect xOff="a"')), "DstRect"),
    "too long": (b" " * (MOST_BYTES + 1), "more than"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_on_the_list_is_refused_in_one_line(kind: str) -> None:
    content, said = REFUSED[kind]
    with pytest.raises(NotAllowedError) as refused:
        read(content)
    assert said in str(refused.value)
    assert str(refused.value).isprintable()


def test_there_are_only_so_many_sources() -> None:
    short = "<SimpleSource><SourceFilename>/a.tif</SourceFilename></SimpleSource>"
    read(text(short * MOST_SOURCES))
    with pytest.raises(NotAllowedError, match=f"has more than {MOST_SOURCES:,} sources"):
        read(text(short * (MOST_SOURCES + 1)))


@pytest.mark.parametrize(
    ("location", "relative", "name", "found"),
    [
        ("/images/a.vrt", 1, "b.tif", "/images/b.tif"),
        ("/images/a.vrt", 1, "../b.tif", "/b.tif"),
        ("/images/a.vrt", 0, "/other/../b.tif", "/b.tif"),
        ("s3://bucket/images/a.vrt", 1, "b.tif", "s3://bucket/images/b.tif"),
        ("s3://bucket/images/a.vrt", 1, "../b.tif", "s3://bucket/b.tif"),
        ("s3://bucket/images/a.vrt", 1, "../../other/b.tif", "s3://other/b.tif"),
        ("s3://bucket/images/a.vrt", 0, "/vsis3/bucket/b.tif", "s3://bucket/b.tif"),
        ("/images/a.vrt", 0, "/vsis3/bucket/b.tif", "s3://bucket/b.tif"),
    ],
)
def test_a_source_is_where_its_name_leads(location: str, relative: int, name: str, found: str) -> None:
    vrt = read(text(SOURCE.format(relative=relative, name=name)), location)
    assert [source.location for source in vrt.sources] == [found]


@pytest.mark.parametrize("name", ["/etc/a.tif", "../../../etc/a.tif", "../../../../../etc/a.tif"])
def test_what_lies_in_s3_names_no_files(name: str) -> None:
    content = text(SOURCE.format(relative=int(name.startswith("..")), name=name))
    with pytest.raises(NotAllowedError, match="lies in S3 and has the source"):
        read(content, "s3://bucket/images/a.vrt")


def test_sources_of_masks_are_looked_at() -> None:
    mask = f'<MaskBand><VRTRasterBand dataType="Byte">{SOURCE.format(relative=0, name="/secret.tif")}</VRTRasterBand>'
    found = read(text(more=f"{mask}</MaskBand>"))
    assert {source.location for source in found.sources} == {"/a.tif", "/secret.tif"}


@pytest.mark.parametrize(
    "band",
    [
        "<NoDataValue>0</NoDataValue><ColorInterp>Gray</ColorInterp>" + PLAIN,
        PLAIN.replace("SimpleSource", "ComplexSource").replace(
            "<SrcRect", "<NODATA>7</NODATA><ScaleOffset>1</ScaleOffset><ScaleRatio>2</ScaleRatio><SrcRect"
        ),
        PLAIN.replace("SimpleSource", "ComplexSource").replace("<SrcRect", "<LUT>0:0,255:100</LUT><SrcRect"),
        PLAIN.replace("<SourceProperties", "<!-- --><SourceProperties").replace('BlockXSize="40" ', ""),
        "<ColorInterp>Palette</ColorInterp><ColorTable><Entry c1='1' c2='2' c3='3' c4='255'/></ColorTable>" + PLAIN,
        "<Metadata><MDI key='STATISTICS_MEAN'>1</MDI></Metadata>" + PLAIN,
    ],
)
def test_what_is_understood_gives_the_pixels_that_gdal_gives(tmp_path: Path, band: str) -> None:
    write(tmp_path / "a.tif", noise(1, 30, 40))
    place = "<SRS>EPSG:32610</SRS><GeoTransform>1,2,0,3,0,-2</GeoTransform>"
    path = tmp_path / "a.vrt"
    path.write_bytes(text(band.replace("/a.tif", str(tmp_path / "a.tif")), more=place))
    with rasterio.open(path) as plain, Datasets().open(str(path)) as dataset:
        np.testing.assert_array_equal(dataset.read(), plain.read())
        np.testing.assert_array_equal(dataset.dataset_mask(), plain.dataset_mask())
        assert (dataset.crs, dataset.transform, dataset.nodatavals) == (plain.crs, plain.transform, plain.nodatavals)
        assert dataset.colorinterp == plain.colorinterp


def test_a_mosaic_as_gdal_writes_it_is_read(tmp_path: Path) -> None:
    """By its own driver, which is how ``gdalbuildvrt`` and ``gdal_translate`` write theirs."""
    pixels = noise(3, 30, 40)
    profile = {"crs": "EPSG:32610", "nodata": 0}
    source = write(tmp_path / "a.tif", pixels, transform=Affine(1, 0, 5, 0, -1, 9), **profile)
    path = tmp_path / "b.vrt"
    rasterio.shutil.copy(source, path, driver="VRT")
    with Datasets().open(str(path)) as dataset, rasterio.open(source) as plain:
        np.testing.assert_array_equal(dataset.read(), pixels)
        assert (dataset.crs, dataset.transform, dataset.nodata) == (plain.crs, plain.transform, 0)


def test_ground_control_points_and_rpcs_stay() -> None:
    points = '<GCPList Projection="EPSG:4326"><GCP Id="" Pixel="0" Line="0" X="1" Y="2" Z="0"/></GCPList>'
    rpcs = '<Metadata domain="RPC"><MDI key="HEIGHT_OFF">1</MDI></Metadata><Metadata domain="OVERVIEWS"/>'
    xml = read(text(more=points + rpcs)).to_xml()
    assert 'Pixel="0"' in xml
    assert "HEIGHT_OFF" in xml
    assert "OVERVIEWS" not in xml
