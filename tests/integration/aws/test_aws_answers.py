"""What AWS answers and the local stack does not, and settings that lead nowhere: one line each, nothing left in S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.aws.bed import Bed
from tests.integration.aws.callers import put, python, removed
from tests.integration.aws.front import REGION, Answer, Asked
from tests.integration.aws.proxy import Proxy
from tests.integration.endpoints import ELSEWHERE
from tests.integration.fleet import INPUTS, Fleet, names, write_tiles
from tests.integration.ship_scene import write_scene

LARGE = {"padding": "x" * 200_000}
SLOW_DOWN = Answer(503, "SlowDown", "Please reduce your request rate.")


class FirstOf:
    """Gives an answer to the first requests of each kind, by library and method."""

    def __init__(self, answer: Answer, count: int = 1, service: str = "s3") -> None:
        self._answer = answer
        self._left: dict[tuple[str, str], int] = {}
        self._count = count
        self._service = service

    def __call__(self, asked: Asked) -> Answer | None:
        if asked.host.service != self._service:
            return None
        kind = (asked.library, asked.request.method)
        left = self._left.setdefault(kind, self._count)
        self._left[kind] = max(0, left - 1)
        return self._answer if left else None

    @property
    def kinds(self) -> set[str]:
        return {library for library, _ in self._left}


@pytest.fixture
def image(aws: Bed, tmp_path: Path) -> Iterator[str]:
    write_scene(tmp_path / "scene.tif", width=400, height=300)
    uri = put(aws, ELSEWHERE, "scene.tif", (tmp_path / "scene.tif").read_bytes())
    yield uri
    removed(aws, uri)


def refused(fleet: Fleet, *arguments: str | Path, folder: Path, **variables: str | None) -> str:
    """The one line that a call says which cannot start its job."""
    outcome = fleet.detect(*arguments, "-e", "scripted", folder=folder, **variables)
    assert (outcome.status, outcome.out) == (2, ""), outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    return outcome.err


@pytest.mark.parametrize("bucket", [INPUTS, ELSEWHERE])
@pytest.mark.parametrize("answer", ["PermanentRedirect", "AuthorizationHeaderMalformed"])
def test_a_bucket_in_another_region(aws: Bed, fleet: Fleet, tmp_path: Path, bucket: str, answer: str) -> None:
    if answer == "PermanentRedirect":
        aws.front.regions[bucket] = "eu-west-1"
    else:
        told = {"x-amz-bucket-region": "eu-west-1"}
        malformed = Answer(400, answer, "the region 'us-west-2' is wrong; expecting 'eu-west-1'", told)
        aws.front.faults.append(lambda asked: malformed if asked.bucket == bucket else None)
    tiles = write_tiles(fleet.tiles / f"elsewhere-{bucket}-{answer}", {"x": {}})
    line = refused(fleet, tiles if bucket == INPUTS else f"s3://{bucket}/in/", folder=tmp_path)
    assert f"bucket '{bucket}' is in region eu-west-1, and this process works in {REGION}" in line
    assert not any("eu-west-1" in host for host in aws.front.hosts)


def test_a_redirect_that_passes(aws: Bed, fleet: Fleet, tmp_path: Path) -> None:
    there = {"Location": f"https://{INPUTS}.s3.{REGION}.amazonaws.com/elsewhere"}
    fault = FirstOf(Answer(307, "TemporaryRedirect", "Please re-send this request.", there))
    aws.front.faults.append(lambda asked: fault(asked) if asked.library == "obstore" else None)
    tiles = write_tiles(fleet.tiles / "redirected", {"r-large": LARGE, "r-small": {}})
    outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path)
    assert (outcome.status, names(outcome.features)) == (0, ["r-large", "r-small"]), outcome.err


@pytest.mark.parametrize("answer", [SLOW_DOWN, Answer(400, "ExpiredToken", "The provided token has expired.")])
def test_what_passes_costs_no_tile(aws: Bed, fleet: Fleet, tmp_path: Path, answer: Answer, image: str) -> None:
    name = answer.code
    tiles = write_tiles(fleet.tiles / name, {f"{name}-large": LARGE, f"{name}-small": {}})
    fault = FirstOf(answer)
    # A client is told at once of credentials that have expired; workers wait.
    aws.front.faults.append(lambda asked: fault(asked) if answer is SLOW_DOWN or asked.library == "obstore" else None)
    outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path)
    assert (outcome.status, names(outcome.features)) == (0, [f"{name}-large", f"{name}-small"]), outcome.err
    outcome = fleet.detect(image, "-e", "bright-objects", "--tile-size", "128", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert fault.kinds >= {"obstore"}


_HEAD = """
import sys
from osml_tasks.errors import S3OperationError
from osml_tasks.s3 import S3Manager, S3Uri
try:
    S3Manager(sleep=lambda _: None).head(S3Uri.parse(sys.argv[1]))
except S3OperationError as error:
    print(type(error).__name__, error)
"""


def test_what_an_answer_to_head_does_not_say_is_asked_for(aws: Bed, fleet: Fleet, image: str) -> None:
    expired = Answer(400, "ExpiredToken", "The provided token has expired.")
    aws.front.faults.append(lambda asked: expired if asked.library == "obstore" else None)
    told = python(fleet, _HEAD, image)
    assert told.startswith("S3CredentialsExpiredError")
    assert "ExpiredToken: The provided token has expired" in told


def test_requester_pays_buckets(aws: Bed, fleet: Fleet, tmp_path: Path, image: str) -> None:
    aws.front.requester_pays.add(ELSEWHERE)
    tile = put(aws, ELSEWHERE, "in/a", b'{"name": "a"}')
    assert "AccessDenied" in refused(fleet, f"s3://{ELSEWHERE}/in/", folder=tmp_path)
    with aws.fleet(ASYNC_SM_REQUEST_PAYER="requester") as paying:
        outcome = paying.detect(f"s3://{ELSEWHERE}/in/", "-e", "scripted", folder=tmp_path)
        assert (outcome.status, names(outcome.features)) == (0, ["a"]), outcome.err
        outcome = paying.detect(image, "-e", "bright-objects", "--tile-size", "128", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert outcome.features
    removed(aws, tile)


def test_certificates_that_lead_nowhere(aws: Bed, fleet: Fleet, tmp_path: Path) -> None:
    tiles = write_tiles(fleet.tiles / "certificates", {"x": {}})
    (tmp_path / "wrong.pem").write_bytes(b"\x30\x82 not PEM")
    for name, said in (("none.pem", "No such file or directory"), ("wrong.pem", "no certificates")):
        line = refused(fleet, tiles, folder=tmp_path, AWS_CA_BUNDLE=str(tmp_path / name))
        assert line.startswith(f"osml-tasks: AWS_CA_BUNDLE is '{tmp_path / name}': ")
        assert said in line
        checked = fleet.run("check", AWS_CA_BUNDLE=str(tmp_path / name))
        assert (checked.returncode, "AWS_CA_BUNDLE is" in checked.stdout + checked.stderr) == (2, True)
    line = refused(fleet, tiles, folder=tmp_path, AWS_CA_BUNDLE=None)
    assert "name the certificates of the server's authority by AWS_CA_BUNDLE" in line


def test_a_proxy_that_leads_nowhere(aws: Bed, fleet: Fleet, tmp_path: Path) -> None:
    tiles = write_tiles(fleet.tiles / "proxy", {"x": {}})
    with Proxy(aws.front.port, "me:sesame") as proxy:
        line = refused(fleet, tiles, folder=tmp_path, HTTPS_PROXY=proxy.url)
        assert "407" in line
        assert "correct HTTPS_PROXY, with user and password" in line
        line = refused(fleet, tiles, folder=tmp_path, HTTPS_PROXY=proxy.url.replace("://", "://me:wrong@"))
        assert "wrong" not in line
        known = {"HTTPS_PROXY": proxy.url.replace("://", "://me:sesame@")}
        outcome = fleet.detect(tiles, "-e", "scripted", folder=tmp_path, **known)
        assert (outcome.status, names(outcome.features)) == (0, ["x"]), outcome.err
        proxy.refuses = True
        line = refused(fleet, tiles, folder=tmp_path, **known)
        assert "403" in line
        assert "sesame" not in line
    line = refused(fleet, tiles, folder=tmp_path, HTTPS_PROXY=proxy.url)
    assert "correct HTTPS_PROXY" in line
