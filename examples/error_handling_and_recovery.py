"""Handle each kind of error, try again what failed, and cancel a job.

    python examples/error_handling_and_recovery.py DIRECTORY [--endpoint NAME]

One tile of the directory is cut short on its way, as by a broken transfer; the second round sends it whole.
The job that is cancelled takes CELERY_BROKER_URL and workers. Everything else is as in basic_async_usage.py.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import osml_tasks
from osml_tasks import AsyncEndpointConfig, AsyncSMDetector, errors


def outcome(detector: AsyncSMDetector, payload: bytes) -> str:
    """What became of a payload: done, or what can be done about it."""
    try:
        said = f"done, {len(detector.find_features(payload)['features'])} features"
    except (errors.EndpointUnusableError, errors.S3AccessError, errors.ExtensionConfigurationError) as error:
        said = f"give up, no payload would fare better: {error}"
    except (errors.ThrottledError, errors.AsyncInferenceTimeoutError) as error:
        said = f"later, when {error.endpoint} has room: {error}"
    except errors.ModelError as error:
        said = f"again: the model failed after {error.elapsed:.1f} s: {error}"
    except errors.UnparsableOutputError as error:
        said = f"correct the model, see {error.uri}: {error}"
    except errors.RejectedError as error:
        said = f"correct the payload of {error.inference_id}: {error}"
    except errors.S3OperationError as error:
        said = f"later: bucket {error.bucket} is in trouble: {error}"
    except errors.ExtensionRuntimeError as error:
        said = f"later, perhaps: {error}"
    return said


def main() -> None:
    """Two rounds over the tiles, then what no retry helps, then a job that is cancelled."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--endpoint", default=os.environ.get("ENDPOINT", "bright-objects"))
    arguments = parser.parse_args()
    tiles = sorted(path for path in arguments.directory.iterdir() if path.is_file())[:4]

    with AsyncSMDetector(arguments.endpoint, AsyncEndpointConfig(max_retries=1)) as detector:
        payloads = {tile: tile.read_bytes() for tile in tiles}
        payloads[tiles[1]] = payloads[tiles[1]][:100]
        first = {tile: outcome(detector, payload) for tile, payload in payloads.items()}
        failed = [tile for tile, said in first.items() if not said.startswith("done")]
        second = {tile: outcome(detector, tile.read_bytes()) for tile in failed}
    for round_name, said in (("first round", first), ("second round", second)):
        for tile, text in said.items():
            print(f"{round_name}: {tile.name}: {text}")
    print("wrong endpoint:", outcome(AsyncSMDetector("no-such-endpoint"), b"tile"))
    print("wrong payload:", outcome(detector, "text"))  # type: ignore[arg-type]

    if os.environ.get("CELERY_BROKER_URL"):
        job = osml_tasks.detect(arguments.directory, endpoint=arguments.endpoint)
        cancelled = job.cancel()
        print(f"job {job.job_id}: cancelled {cancelled}, now {job.wait().state}")


if __name__ == "__main__":
    main()
