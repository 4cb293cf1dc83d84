"""Find the features of one tile with an asynchronous endpoint, without a broker.

    python examples/basic_async_usage.py TILE [--endpoint NAME]

ARTIFACT_BUCKET, ASYNC_SM_OUTPUT_BUCKET and ENDPOINT, or --endpoint, say where; AWS as boto3 finds it. On a laptop,
paste the exports of 'osml-tasks local' and use its endpoint, bright-objects.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from osml_tasks import AsyncEndpointConfig, AsyncMetricsTracker, AsyncSMDetector


def main() -> None:
    """Send one tile, and say what came back and how long each step took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tile", type=Path)
    parser.add_argument("--endpoint", default=os.environ.get("ENDPOINT", "bright-objects"))
    arguments = parser.parse_args()

    config = AsyncEndpointConfig()
    metrics = AsyncMetricsTracker()
    with AsyncSMDetector(arguments.endpoint, config) as detector, arguments.tile.open("rb") as payload:
        found = detector.find_features(payload, metrics)

    print(f"{len(found['features'])} features in {arguments.tile.name}")
    for feature in found["features"][:3]:
        print("  box in pixels:", feature["properties"].get("imageBBox"))
    print(f"in total {metrics.get_metric('TotalAsyncDuration'):.2f} s, polls: {metrics.get_metric('PollingAttempts')}")
    print("went inline" if metrics.get_metric("InlineCount") else "went through S3")


if __name__ == "__main__":
    main()
