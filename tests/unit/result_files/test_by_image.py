"""A result in one file of each image."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from osml_tasks.errors import VectorFileError
from osml_tasks.result_files.by_image import image_stems, split_by_image
from tests.unit.result_files.collections import feature, write_collection


def test_each_image_gets_its_features_in_their_order(tmp_path: Path) -> None:
    # A retry's come last, whatever their image.
    images = ["a.tif", "s3://b/c.tif", "a.tif", "none.tif"]
    features = [feature(image=image, n=n) for n, image in enumerate([*images[:3], images[1]])]
    files = split_by_image(write_collection(tmp_path, features), images, tmp_path)
    assert {image: file.name for image, file in files.items()} == {
        "a.tif": "a.geojson",
        "s3://b/c.tif": "c.geojson",
        "none.tif": "none.geojson",
    }
    found = {image: orjson.loads(file.read_bytes()) for image, file in files.items()}
    assert all(one["type"] == "FeatureCollection" for one in found.values())
    assert found["a.tif"]["features"] == [features[0], features[2]]
    assert found["s3://b/c.tif"]["features"] == [features[1], features[3]]
    assert found["none.tif"]["features"] == []


def test_files_are_named_after_images_and_numbered_where_two_would_be_alike() -> None:
    images = ["d/a.tif", "e/a.tif", "A.png", "a_2.ntf", "b.tar.tif", "s3://x/y/", "/", "a.tif"]
    stems = image_stems(images)
    assert list(stems) == images
    assert len({stem.casefold() for stem in stems.values()}) == len(images)
    assert [*stems.values()][:3] == ["a", "a_2", "A_3"]
    assert stems["b.tar.tif"] == "b.tar"
    assert stems["/"] == "image"


@pytest.mark.parametrize("sources", [[], None, [{}], ["a"], [{"location": "b.tif"}]])
def test_a_feature_of_no_image_is_not_lost_in_silence(tmp_path: Path, sources: object) -> None:
    strange = feature()
    strange["properties"]["sourceMetadata"] = sources
    with pytest.raises(VectorFileError, match="no image of the job"):
        split_by_image(write_collection(tmp_path, [feature(), strange]), ["a.tif"], tmp_path)
