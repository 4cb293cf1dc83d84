"""Tiles one after the other, in this thread, through a detector: the way without workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osml_tasks.errors import (
    AsyncInferenceTimeoutError,
    ClockSkewError,
    CredentialsExpiredError,
    EndpointUnusableError,
    ExtensionError,
    ExtensionRuntimeError,
    ModelError,
    SourceError,
    ThrottledError,
    UnparsableOutputError,
)
from osml_tasks.features import add_provenance, source_of
from osml_tasks.jobs import Reason
from osml_tasks.metrics import MetricsSink
from osml_tasks.report import TileFailure
from osml_tasks.sources import SourceTile

if TYPE_CHECKING:
    from osml_tasks.detectors import AsyncSMDetector

_REASONS: dict[type[ExtensionError], Reason] = {
    ModelError: Reason.MODEL,
    AsyncInferenceTimeoutError: Reason.TIMEOUT,
    UnparsableOutputError: Reason.UNPARSABLE,
    ThrottledError: Reason.THROTTLED,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of some tiles: their features in order, and a report's entry for each that failed."""

    features: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)


def one_after_the_other(
    detector: AsyncSMDetector, tiles: Iterable[SourceTile], outcome: Outcome, metrics: MetricsSink | None = None
) -> None:
    """Have a detector do tiles one by one.

    :param outcome: gets what becomes of each as soon as it is known.
    :raises EndpointUnusableError: no further tile can succeed.
    :raises ClockSkewError: nor can it here, with this machine's clock.
    """
    for tile in tiles:
        try:
            features = _features(detector, tile, metrics)
        except (EndpointUnusableError, ClockSkewError, CredentialsExpiredError):
            raise
        except (ExtensionRuntimeError, SourceError) as error:
            outcome.failures.append(failure(tile.name, error, detector.config.max_retries))
        else:
            add_provenance(features, job_id=detector.id, source=source_of(tile.name), inferred=datetime.now(UTC))
            outcome.features.extend(features)


def failure(tile: str, error: ExtensionError, max_retries: int = 0) -> dict[str, Any]:
    """An error as a report has it.

    :param max_retries: how often a tile was tried again, if that is done for such an error.
    """
    reason = next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), Reason.INPUT)
    attempts = 1 + (max_retries if reason in (Reason.MODEL, Reason.THROTTLED) else 0)
    return TileFailure(0, tile, reason, str(error), attempts).entry()


def _features(detector: AsyncSMDetector, tile: SourceTile, metrics: MetricsSink | None) -> list[dict[str, Any]]:
    if tile.uri is not None:
        return list(detector.find_features(tile.uri, metrics)["features"])
    if tile.path is None:
        return list(detector.find_features(tile.body or b"", metrics)["features"])
    try:
        with Path(tile.path).open("rb") as stream:
            return list(detector.find_features(stream, metrics)["features"])
    except OSError as error:
        raise SourceError(f"{tile.name!r} cannot be read: {error.strerror}") from None
