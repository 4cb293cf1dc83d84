"""The options of the command line that are about images."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from osml_tasks.cli.image_options import ImageRequest, add_image_options, image_request
from osml_tasks.imagery.cutting import Compression, Cutting, TileFormat
from osml_tasks.imagery.merge_options import MergeMethod, MergeOn, MergeOptions
from osml_tasks.imagery.options import IMAGE_OPTIONS, ImageOptions


def asked(*arguments: str) -> ImageRequest | str:
    """What comes of some arguments, or the complaint."""
    found: list[ImageRequest] = []

    @click.command
    @add_image_options
    def command(**given: Any) -> None:
        found.append(image_request(given))

    done = CliRunner().invoke(command, arguments)
    return found[0] if found else done.output or str(done.exception)


def test_nothing_asked_for() -> None:
    assert asked() == ImageRequest()


def test_each_option_gets_to_its_place() -> None:
    arguments = (
        "--cut --tile-size 512 --overlap 8 --tile-format gtiff --tile-compression zstd --bands 3,2,1 --stretch 1,99.5 "
        "--roi 0,0,1,1 --height 3 --dem dem.tif --merge soft-nms --iou 0.3 --merge-on box --score-threshold 0.2 "
        "--property a=1 --property b=x=y --property c=true --map map.html --preview out.png"
    )
    assert asked(*arguments.split()) == ImageRequest(
        cut=True,
        options=ImageOptions(
            Cutting(512, 8, TileFormat.GTIFF, Compression.ZSTD, (3, 2, 1), (1, 99.5)),
            MergeOptions(method=MergeMethod.SOFT_NMS, iou=0.3, score_threshold=0.2, on=MergeOn.BOX),
            "0,0,1,1",
            3.0,
            "dem.tif",
            {"a": 1, "b": "x=y", "c": True},
        ),
        map=Path("map.html"),
        preview=Path("out.png"),
    )


@pytest.mark.parametrize("option", ["--map=a.html", "--preview=a.png"])
def test_what_is_to_be_looked_at_is_of_images(option: str) -> None:
    request = asked(option)
    assert isinstance(request, ImageRequest)
    assert request.options == ImageOptions()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--tile-size many", "'many' is not a valid integer"),
        ("--bands 1,red", "'1,red' is no list of numbers with commas between them"),
        ("--bands 0", "bands count from 1: set --bands to others than 0"),
        ("--stretch 2", "'2' is no two percentiles: write something like 2,98"),
        ("--stretch a,b", "'a,b' is no list of numbers with commas between them"),
        ("--stretch nan,98", "nan,98 are no two percentiles"),
        ("--tile-format gif", "'gif' is not one of"),
        ("--merge union", "'union' is not one of"),
        ("--property key", "'key' has no key and value: write key=value"),
        ("--property =1", "'=1' has no key and value: write key=value"),
        ("--tile-size 512 --overlap 512", "an overlap of 512 px does not go with tiles of 512 px"),
        ("--iou 7", "iou"),
        ("--score-threshold nan", "score"),
    ],
)
def test_what_is_wrong_is_said(arguments: str, complaint: str) -> None:
    said = asked(*arguments.split())
    assert isinstance(said, str)
    assert complaint in said


def test_the_command_line_has_what_python_has() -> None:
    def command(**given: Any) -> None:
        """Take options."""

    made = click.command(add_image_options(command))
    assert {option.name for option in made.params} == IMAGE_OPTIONS | {"cut", "map", "preview"}
    assert inspect.getdoc(made)
