"""What the benchmark looks at while a run is under way, and afterwards."""

from __future__ import annotations

import http.client
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.client import run_client
from benchmarks.delayed_way import DelayedWay
from benchmarks.errors import BenchmarkError
from benchmarks.model import FEATURES_PER_TILE, feature
from benchmarks.peer_geojson import write_collection
from benchmarks.result import check_result
from benchmarks.tiles import FILES, INLINE_LIMIT, find_tiles, link_tiles, make_contents
from tests.waiting import PATIENCE

TILES = [Path("/tiles/a.png"), Path("/tiles/b.png")]


def features(tile: Path) -> list[dict[str, Any]]:
    found = [feature(number) for number in range(FEATURES_PER_TILE)]
    for one in found:
        one["properties"]["sourceMetadata"] = [{"location": str(tile)}]
    return found


@pytest.mark.parametrize("whole_bytes", [0, 1 << 30], ids=["by its lines", "at once"])
def test_a_whole_result_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_bytes: int) -> None:
    monkeypatch.setattr("benchmarks.result.WHOLE_BYTES", whole_bytes)
    lines = b",\n".join(orjson.dumps(one) for tile in TILES for one in features(tile))
    (tmp_path / "result").write_bytes(b'{"type":"FeatureCollection","features":[\n' + lines + b"\n]}\n")
    check_result(tmp_path / "result", TILES)
    with pytest.raises(BenchmarkError, match=r"c\.png"):
        check_result(tmp_path / "result", [*TILES, Path("/tiles/c.png")])


def spoil(found: list[dict[str, Any]], how: str) -> None:
    match how:
        case "missing":
            del found[3]
        case "doubled":
            found.append(found[3])
        case "changed":
            found[3]["properties"]["featureClasses"] = []
        case "unknown":
            found[3]["id"] = "object-99"
        case "of another tile":
            found[3]["properties"]["sourceMetadata"] = [{"location": "/tiles/c.png"}]


@pytest.mark.parametrize("how", ["missing", "doubled", "changed", "unknown", "of another tile"])
def test_a_feature_that_is_not_as_the_model_gave_it_fails_the_run(tmp_path: Path, how: str) -> None:
    tiles = [features(tile) for tile in TILES]
    spoil(tiles[1], how)
    write_collection(tmp_path / "result", tiles)
    with pytest.raises(BenchmarkError):
        check_result(tmp_path / "result", TILES)


def test_tiles_are_names_of_few_files_half_of_them_small(tmp_path: Path) -> None:
    contents = make_contents(tmp_path / "contents")
    tiles = find_tiles(link_tiles(tmp_path / "tiles", contents, 1000))
    sizes = [tile.stat().st_size for tile in tiles]
    assert len(tiles) == 1000
    assert len({tile.stat().st_ino for tile in tiles}) == FILES
    assert sum(size <= INLINE_LIMIT for size in sizes) == 500
    assert 130_000 < sum(sizes) / len(sizes) < 150_000
    small = find_tiles(link_tiles(tmp_path / "small", contents, 100, only_small=True))
    assert max(tile.stat().st_size for tile in small) <= INLINE_LIMIT


_CLIENT = """
import time
def work(): end = time.process_time() + 0.1; any(time.process_time() >= end for _ in iter(int, 1))
ballast = b"x" * 80_000_000
work(); print("job 20260101-000000-0123abcd", flush=True); time.sleep(0.5); work()
"""


def test_a_clients_cost_is_read_from_outside(tmp_path: Path) -> None:
    run = run_client([sys.executable, "-c", _CLIENT], os.environ, tmp_path / "log", within=PATIENCE)
    assert run.publish_cpu is not None
    assert 0.09 <= run.publish_cpu <= run.cpu - 0.09
    assert run.peak > 80_000_000


def test_a_client_that_fails_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="ended with 3:\nno tiles"):
        run_client([sys.executable, "-c", "print('no tiles'); exit(3)"], os.environ, tmp_path / "log", within=PATIENCE)


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        size = len(self.rfile.read(int(self.headers["Content-Length"])))
        answer = f"{size} {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("header", [{}, {"Expect": "100-continue"}])
def test_each_request_on_a_kept_connection_is_held_back_once_and_counted(server: str, header: dict[str, str]) -> None:
    with DelayedWay({"s3": server}, delay=0.05) as way:
        address = way.urls["s3"].removeprefix("http://")
        connection = http.client.HTTPConnection(address)
        began = time.monotonic()
        for _ in range(3):
            connection.request("PUT", "/", body=b"x" * 1_000_000, headers=header)
            assert connection.getresponse().read() == f"1000000 {address}".encode()
        assert time.monotonic() - began >= 3 * 0.05
        connection.close()
        assert way.requests() == {"s3": 3}
