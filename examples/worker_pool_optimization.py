"""Send a directory of tiles through a pool of workers, and then one after the other: the same features, the time apart.

    python examples/worker_pool_optimization.py DIRECTORY [--endpoint NAME]

With CELERY_BROKER_URL the pool uses that broker's workers; without, it starts broker and workers for the call (the
extra osml-tasks[local]). Everything else is as in basic_async_usage.py. ASYNC_SM_SUBMISSION_WORKERS,
ASYNC_SM_POLLING_WORKERS and ASYNC_SM_MAX_CONCURRENT_JOBS tune it.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from osml_tasks import AsyncEndpointConfig, AsyncSMDetector, AsyncTileWorkerPool


def main() -> None:
    """Do the work both ways and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--endpoint", default=os.environ.get("ENDPOINT", "bright-objects"))
    arguments = parser.parse_args()
    tiles = sorted(path for path in arguments.directory.iterdir() if path.is_file())

    counts = []
    for optimized in (True, False):
        config = AsyncEndpointConfig(enable_worker_optimization=optimized)
        began = time.monotonic()
        with AsyncSMDetector(arguments.endpoint, config) as detector:
            pool = AsyncTileWorkerPool(detector, config)
            processed, failed = pool.process_tiles_async(tiles)
        counts.append(len(pool.features["features"]))
        print(
            f"{'worker pool' if optimized else 'one by one'}: {processed} tiles, {failed} failed, "
            f"{counts[-1]} features, {time.monotonic() - began:.1f} s"
        )
        for failure in pool.failures[:3]:
            print(f"  {failure['tile']}: {failure['reason']}: {failure['error']}")
    print("same number of features" if counts[0] == counts[1] else "the numbers of features differ")


if __name__ == "__main__":
    main()
