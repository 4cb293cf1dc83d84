"""``rediss://``: a fleet whose messages and state go by TLS, and servers that are not to be trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest

from osml_tasks.local.broker import Broker
from osml_tasks.local.server import free_port
from tests.integration.crew import ALL, Crew
from tests.integration.fleet import PATIENCE, REPOSITORY, Fleet, names, start_python, wait_until, write_tiles
from tests.integration.test_flower import FLOWER_READY
from tests.integration.tls_way import TlsWay


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def way(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsWay]:
    with TlsWay(broker.url, tmp_path_factory.mktemp("tls")) as running:
        yield running


def of(url: str) -> dict[str, str]:
    return {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}


@pytest.mark.parametrize("written", ["in the URL", "in celeryconfig.py"])
def test_a_job_goes_by_tls_and_its_certificate_is_checked(
    workers: Crew, way: TlsWay, tmp_path: Path, written: str
) -> None:
    server = f"rediss://localhost:{way.port}/0"
    guide = (REPOSITORY / "docs/security.md").read_text().replace("/etc/osml-tasks/ca.pem", str(way.ca_file))
    (url,) = re.findall(r"^CELERY_BROKER_URL=(\S+)$", guide, re.MULTILINE)
    (settings,) = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    if written == "in the URL":
        variables = of(url.replace("osml:CHANGE-ME@broker.example.com:6379", f"localhost:{way.port}"))
    else:
        (tmp_path / "by_tls.py").write_text(settings)
        variables = of(server) | {"CELERY_CONFIG_MODULE": "by_tls", "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    workers.start("all", ALL, 2, **variables)
    tiles = write_tiles(tmp_path / "tiles", {"a": {}, "b": {"fail_first": 1}, "c": {}})
    outcome = workers.fleet.detect(tiles, "-e", "scripted", folder=tmp_path, **variables)
    assert (outcome.status, names(outcome.features)) == (0, ["a", "b", "c"]), outcome.err
    assert "insecure" not in outcome.err
    checked = workers.fleet.run("check", "-e", "scripted", **variables)
    assert (checked.returncode, "ok    broker: rediss://" in checked.stdout) == (0, True), checked.stdout
    for call in (["queues"], ["jobs"], ["status", outcome.report["job_id"]]):
        done = workers.fleet.run(*call, **variables)
        assert done.returncode == 0, done.stderr


def test_flower_goes_by_tls_for_its_queues_too(here: Fleet, way: TlsWay, tmp_path: Path) -> None:
    port = free_port()
    variables = of(f"rediss://localhost:{way.port}/0?ssl_ca_certs={way.ca_file}")
    command = ["-m", "celery", "-A", "osml_tasks", "flower", "--address=127.0.0.1", f"--port={port}"]
    unlocked = {"FLOWER_UNAUTHENTICATED_API": "true"}
    with ExitStack() as running:
        start_python(running, "flower", command, tmp_path, {**here.env, **variables, **unlocked}, FLOWER_READY)

        def lengths() -> set[str]:
            with urlopen(f"http://127.0.0.1:{port}/api/queues/length", timeout=PATIENCE) as answer:
                return {queue["name"] for queue in json.load(answer)["active_queues"]}

        wait_until(lambda: lengths() == {f"osml.{step}" for step in ("submit", "poll", "assemble", "cleanup")})


@pytest.mark.parametrize(
    ("host", "query", "said"),
    [
        ("localhost", "", r"is not to be trusted \(.*unable to get local issuer.*"),
        ("localhost", "?ssl_cert_reqs=required", r"is not to be trusted \(.*unable to get local issuer.*"),
        ("localhost", "?ssl_ca_certs={other}", r"is not to be trusted \(.*certificate verify failed.*"),
        ("127.0.0.1", "?ssl_ca_certs={ca}", r"is not to be trusted \(.*mismatch.*"),
        ("localhost", "?ssl_ca_certs=/none.pem", r"ssl_ca_certs of broker_use_ssl is '/none.pem': there is no such.*"),
    ],
    ids=["default", "unknown authority", "another authority", "wrong host", "no file"],
)
def test_a_server_that_proves_nothing_is_refused_in_one_line(
    here: Fleet, broker: Broker, way: TlsWay, tmp_path: Path, host: str, query: str, said: str
) -> None:
    other = TlsWay(broker.url, tmp_path, "another")
    url = f"rediss://:sesame@{host}:{way.port}/0" + query.format(ca=way.ca_file, other=other.ca_file)
    tiles = write_tiles(tmp_path / "tiles", {"a": {}})
    outcome = here.detect(tiles, "-e", "scripted", folder=tmp_path, **of(url))
    assert (outcome.status, outcome.out) == (2, "")
    assert re.fullmatch(rf"osml-tasks: [^\n]*{said}\n", outcome.err), outcome.err
    checked = here.run("check", **of(url))
    (line,) = [line for line in checked.stdout.splitlines() if line.startswith("FAIL  broker: ")]
    assert re.search(said, line), line
    asked = here.run("jobs", **of(url))
    assert (asked.returncode, len(asked.stderr.splitlines())) == (2, 1), asked.stderr
    assert "sesame" not in outcome.err + checked.stdout + asked.stderr


def test_the_state_alone_may_go_by_tls_and_is_checked(here: Fleet, broker: Broker, way: TlsWay) -> None:
    state = f"rediss://localhost:{way.port}/0"
    variables = {"CELERY_BROKER_URL": broker.url}
    refused = here.run("check", **variables, CELERY_RESULT_BACKEND=state)
    assert "the result backend rediss://localhost" in refused.stdout
    assert "is not to be trusted" in refused.stdout
    taken = here.run("jobs", **variables, CELERY_RESULT_BACKEND=f"{state}?ssl_ca_certs={way.ca_file}")
    assert taken.returncode == 0, taken.stderr
