"""What all tiles of a job over whole images have in common: the images, and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from osml_tasks.errors import NotAllowedError
from osml_tasks.imagery.cutting import Cutting
from osml_tasks.imagery.image import Image
from osml_tasks.imagery.merge_options import MergeOptions


@dataclass(frozen=True, slots=True)
class ImageJob:
    """Images and options of a job; in S3 beside its manifest.

    :ivar properties: what every feature gets besides.
    """

    images: tuple[Image, ...]
    cutting: Cutting
    merging: MergeOptions
    properties: Mapping[str, Any]

    def to_json(self) -> bytes:
        """The same as it is kept."""
        values = {
            "images": [image.to_dict() for image in self.images],
            "cutting": asdict(self.cutting),
            "merging": asdict(self.merging),
            "properties": dict(self.properties),
        }
        return orjson.dumps(values)

    @classmethod
    def from_json(cls, text: bytes) -> ImageJob:
        """Read it back.

        :raises NotAllowedError: it is nothing of the kind.
        """
        try:
            values = orjson.loads(text)
            return cls(
                images=tuple(map(Image.from_dict, values["images"])),
                cutting=Cutting(**values["cutting"]),
                merging=MergeOptions(**values["merging"]),
                properties=dict(values["properties"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise NotAllowedError(f"what is kept of a job's images is no record of them ({error})") from None

    def with_dem(self, dem: str) -> ImageJob:
        """The same with its height model elsewhere."""
        return replace(self, images=tuple(image.with_dem(dem) for image in self.images))
