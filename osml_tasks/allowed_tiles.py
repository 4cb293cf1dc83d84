"""Which files and objects a worker may read, or have an endpoint read: what its configuration says, not a message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osml_tasks.errors import NotAllowedError
from osml_tasks.one_line import in_one_line
from osml_tasks.s3_uri import S3Uri

if TYPE_CHECKING:
    from osml_tasks.config import AsyncEndpointConfig


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a configuration allows; another process can be told of it.

    :ivar roots: directories.
    :ivar buckets: S3 URIs that tiles lie under, as ``s3://bucket/prefix/``; without any it is for who started a
        job to say.
    :ivar own: the S3 URI that this program's own objects lie under.
    """

    roots: tuple[str, ...]
    buckets: tuple[str, ...]
    own: str

    @classmethod
    def by(cls, config: AsyncEndpointConfig) -> Allowed:
        """What a configuration allows."""
        return cls(tuple(map(str, config.tile_roots)), config.tile_buckets, config.input_location)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Allowed:
        """The inverse of :meth:`to_dict`, from lists as JSON has them."""
        return cls(tuple(values["roots"]), tuple(values["buckets"]), values["own"])

    def to_dict(self) -> dict[str, Any]:
        """All of it, in values that JSON has."""
        return asdict(self)

    def tile(self, location: str) -> Path | S3Uri:
        """The file or object behind a location.

        :raises NotAllowedError: as :meth:`file` and :meth:`object`.
        """
        return self.object(location) if location.startswith("s3://") else self.file(location)

    def file(self, location: str) -> Path:
        """The file behind a location, links followed.

        :raises NotAllowedError: it lies under none of the roots.
        """
        try:
            path = Path(location).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            # Python 3.13 has no error for a link that leads to itself; before, it is no OSError.
            raise NotAllowedError(f"this worker may not read {location}: {in_one_line(str(error), 200)}") from None
        if not any(path.is_relative_to(root) for root in _resolved(self.roots)):
            raise NotAllowedError(
                f"this worker may not read {location}: it is under none of ASYNC_SM_TILE_ROOTS "
                f"({', '.join(self.roots) or 'none'})"
            )
        return path

    def object(self, location: str) -> S3Uri:
        """The object behind a location.

        :raises NotAllowedError: there are locations that tiles must lie under, and it does not, nor under our own.
        """
        uri = S3Uri.parse(location)
        if self.buckets and not lies_under(uri, (*self.buckets, self.own)):
            raise NotAllowedError(
                f"this worker may not use {location}: it is under none of ASYNC_SM_TILE_BUCKETS "
                f"({', '.join(self.buckets)})"
            )
        return uri

    def referred(self, location: str, by: str) -> Path | S3Uri:
        """The file or object behind a location that an image names, for which nobody has asked.

        :param by: the location of that image.
        :raises NotAllowedError: as :meth:`file` and :meth:`object`; and without locations that tiles must lie
            under, an object is neither in the input bucket nor in the image's own.
        """
        if not location.startswith("s3://"):
            return self.file(location)
        uri = self.object(location)
        buckets = {S3Uri.parse(one).bucket for one in (self.own, by) if one.startswith("s3://")}
        if not self.buckets and (uri.bucket not in buckets or uri.has_odd_parts):
            raise NotAllowedError(
                f"this worker may not use {location}, which {by} names: name its bucket in ASYNC_SM_TILE_BUCKETS"
            )
        return uri


def allowed_tile(location: str, config: AsyncEndpointConfig) -> Path | S3Uri:
    """The file or object behind a location, if this worker may use it.

    :raises NotAllowedError: as :func:`readable_tile` and :func:`invocable_tile`.
    """
    return Allowed.by(config).tile(location)


def readable_tile(location: str, config: AsyncEndpointConfig) -> Path:
    """The file behind a location, if this worker may read it.

    :raises NotAllowedError: if it lies under none of the configured roots, links followed; or leads in a circle.
    """
    return Allowed.by(config).file(location)


def invocable_tile(location: str, config: AsyncEndpointConfig) -> S3Uri:
    """The object behind a location, if this worker may have an endpoint read it.

    :raises NotAllowedError: it lies under none of ``ASYNC_SM_TILE_BUCKETS``, which is set, nor under the input prefix.
    """
    return Allowed.by(config).object(location)


def lies_under(uri: S3Uri, locations: Iterable[str]) -> bool:
    """Whether an object is under one of some locations, as ``s3://bucket/prefix/``."""
    return not uri.has_odd_parts and str(uri).startswith(tuple(locations))


@lru_cache(maxsize=8)
def _resolved(roots: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(Path(root).resolve() for root in roots)
