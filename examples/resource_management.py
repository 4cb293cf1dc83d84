"""See what a detector leaves in S3, and when it goes: statistics, policies, cleanup by hand and by force.

    python examples/resource_management.py TILE [--endpoint NAME]

Everything else is as in basic_async_usage.py.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from osml_tasks import AsyncEndpointConfig, AsyncSMDetector
from osml_tasks.cleanup import CleanupPolicy, ResourceManager


def show(title: str, stats: dict[str, Any]) -> None:
    """Print what waits to be cleaned up, and what has been."""
    waiting = {kind: number for kind, number in stats["by_type"].items() if number}
    print(f"{title}: {stats['total_resources']} waiting {waiting or ''}, {stats['by_outcome']['cleaned']} cleaned")
    for failure in stats["failures"]:
        print(f"  cannot be deleted: {failure['resource']}: {failure['error']}")


def main() -> None:
    """Send the same tile under each policy, through S3, so that there is something to delete."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tile", type=Path)
    parser.add_argument("--endpoint", default=os.environ.get("ENDPOINT", "bright-objects"))
    arguments = parser.parse_args()
    tile = arguments.tile.read_bytes()

    for policy in CleanupPolicy:
        config = AsyncEndpointConfig(cleanup_policy=policy, cleanup_delay_seconds=3600, inline_payload_max_bytes=0)
        with AsyncSMDetector(arguments.endpoint, config) as detector:
            detector.find_features(tile)
            show(policy, detector.get_resource_stats())
            print(f"  due now: {detector.cleanup_resources()}, by force: {detector.cleanup_resources(force=True)}")
        # What a "delayed" detector has left is deleted here; with "disabled" only force deletes.

    with tempfile.TemporaryDirectory() as directory, ResourceManager(AsyncEndpointConfig()) as resources:
        file = Path(directory, "cut-out.png")
        file.write_bytes(tile)
        resources.register_temporary_file(file)
        show("a file of one's own", resources.get_stats())
        resources.cleanup(force=True)
        print("  the file is", "still there" if file.exists() else "gone")


if __name__ == "__main__":
    main()
