"""Peer with a chord, the client: a chord of one ``chain(submit_one, poll_one)`` a tile, joined by its body.

``python -m benchmarks.peer_chord_client DIRECTORY ENDPOINT RESULT``
"""

from __future__ import annotations

import sys
from pathlib import Path

from celery import chain, chord

from benchmarks.peer_chord import app, join, poll_one, submit_one
from benchmarks.tiles import find_tiles

PATIENCE_SECONDS = 600


def main(directory: str, endpoint: str, result: str) -> None:
    """Publish the chord and wait for its end."""
    tiles = [str(path) for path in find_tiles(Path(directory))]
    chains = [chain(submit_one.s(tile, endpoint), poll_one.s(tile)) for tile in tiles]
    pending = chord(chains, app=app)(join.s(result))
    print("job", pending.id, flush=True)
    # By its id: the result that chord() returns knows its header, and would ask Redis for every poll_one
    # again and again while it waits, which costs this client more than all the rest (18 ms a tile).
    app.AsyncResult(pending.id).get(timeout=PATIENCE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
