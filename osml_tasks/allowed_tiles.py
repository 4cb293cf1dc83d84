"""Which files and objects a worker may read, or have an endpoint read: what its configuration says, not a message."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import NotAllowedError
from osml_tasks.s3_uri import S3Uri


def allowed_tile(location: str, config: AsyncEndpointConfig) -> Path | S3Uri:
    """The file or object behind a location, if this worker may use it.

    :raises NotAllowedError: as :func:`readable_tile` and :func:`invocable_tile`.
    """
    return (invocable_tile if location.startswith("s3://") else readable_tile)(location, config)


def readable_tile(location: str, config: AsyncEndpointConfig) -> Path:
    """The file behind a location, if this worker may read it.

    :raises NotAllowedError: if it lies under none of the configured roots, links followed.
    """
    path = Path(location).resolve()
    if not any(path.is_relative_to(root) for root in _resolved(config.tile_roots)):
        roots = ", ".join(map(str, config.tile_roots)) or "none"
        raise NotAllowedError(f"this worker may not read {location}: it is under none of ASYNC_SM_TILE_ROOTS ({roots})")
    return path


def invocable_tile(location: str, config: AsyncEndpointConfig) -> S3Uri:
    """The object behind a location, if this worker may have an endpoint read it.

    :raises NotAllowedError: it lies under none of ``ASYNC_SM_TILE_BUCKETS``, which is set, nor under the input prefix.
    """
    uri = S3Uri.parse(location)
    if config.tile_buckets and not lies_under(uri, (*config.tile_buckets, config.input_location)):
        raise NotAllowedError(
            f"this worker may not use {location}: it is under none of ASYNC_SM_TILE_BUCKETS "
            f"({', '.join(config.tile_buckets)})"
        )
    return uri


def lies_under(uri: S3Uri, locations: Iterable[str]) -> bool:
    """Whether an object is under one of some locations, as ``s3://bucket/prefix/``."""
    return not uri.has_odd_parts and str(uri).startswith(tuple(locations))


@lru_cache(maxsize=8)
def _resolved(roots: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(root.resolve() for root in roots)
