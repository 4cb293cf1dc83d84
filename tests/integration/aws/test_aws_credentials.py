"""Credentials from everywhere that botocore knows, for everything that signs; and what happens when they expire."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.aws.bed import WRAPPER, Bed
from tests.integration.aws.callers import put, python, removed, started
from tests.integration.aws.front import REGION
from tests.integration.cloud import ACCOUNT
from tests.integration.endpoints import ELSEWHERE
from tests.integration.fleet import INPUTS, Fleet, names, wait_until, write_tiles
from tests.integration.ship_scene import write_scene

Variables = dict[str, str | None]
ROLE = f"arn:aws:iam::{ACCOUNT}:role/detector"

_USE = """
import sys
from botocore.exceptions import ClientError
from osml_tasks.accounts import session_of
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.imagery.datasets import Datasets
from osml_tasks.runtime import runtime_client
from osml_tasks.s3 import S3Manager, S3Uri
session = session_of(AsyncEndpointConfig())
s3, uri = S3Manager(session), S3Uri(sys.argv[1], "used/object")
s3.put(uri, b"body")
assert s3.get(uri) == b"body"
assert [found.uri for found in s3.list(uri.parent)] == [uri]
assert s3.delete([uri]) == []
with Datasets(session).open(sys.argv[2]) as image:
    print(image.width)
try:
    runtime_client(session, 1).invoke_endpoint_async(EndpointName="none", Body=b"tile")
except ClientError as error:
    print(error.response["Error"]["Message"])
"""


@pytest.fixture
def image(aws: Bed, tmp_path: Path) -> Iterator[str]:
    write_scene(tmp_path / "scene.tif", width=400, height=300)
    uri = put(aws, ELSEWHERE, "scene.tif", (tmp_path / "scene.tif").read_bytes())
    yield uri
    removed(aws, uri)


def of_a_file(aws: Bed, directory: Path) -> Variables:
    keys = aws.front.keys.temporary()
    write_credentials(directory / "credentials", keys)
    return {"AWS_SHARED_CREDENTIALS_FILE": str(directory / "credentials"), "AWS_PROFILE": "there"}


def write_credentials(path: Path, keys: Any) -> None:
    lines = "".join(f"{name.lower()} = {value}\n" for name, value in keys.variables.items())
    path.write_text(f"[there]\n{lines}")


def of_a_process(aws: Bed, directory: Path) -> Variables:
    (directory / "answer.json").write_text(json.dumps(aws.front.keys.temporary().document))
    (directory / "config").write_text(f"[profile there]\ncredential_process = cat {directory / 'answer.json'}\n")
    return {"AWS_CONFIG_FILE": str(directory / "config"), "AWS_PROFILE": "there"}


def of_a_container(aws: Bed, _: Path) -> Variables:
    return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{aws.front.metadata_port}/container"}


def of_a_machine(aws: Bed, _: Path) -> Variables:
    return {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{aws.front.metadata_port}",
        "AWS_EC2_METADATA_DISABLED": None,
    }


def of_a_web_identity(_: Bed, directory: Path) -> Variables:
    (directory / "token").write_text("a-token")
    return {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(directory / "token")}


def of_a_sign_in(_: Bed, directory: Path) -> Variables:
    url = "https://ours.awsapps.com/start"
    lines = {"sso_start_url": url, "sso_region": REGION, "sso_account_id": ACCOUNT, "sso_role_name": "detector"}
    (directory / "config").write_text(
        "[profile there]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())
    )
    cache = directory / ".aws" / "sso" / "cache" / f"{hashlib.sha1(url.encode()).hexdigest()}.json"
    cache.parent.mkdir(parents=True)
    expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    cache.write_text(json.dumps({"startUrl": url, "region": REGION, "accessToken": "signed-in", "expiresAt": expires}))
    return {"AWS_CONFIG_FILE": str(directory / "config"), "AWS_PROFILE": "there", "HOME": str(directory)}


@pytest.mark.parametrize(
    "source",
    [of_a_file, of_a_process, of_a_container, of_a_machine, of_a_web_identity, of_a_sign_in],
    ids=lambda source: source.__name__.removeprefix("of_a_"),
)
def test_all_that_signs_takes_credentials_from(
    aws: Bed, fleet: Fleet, tmp_path: Path, image: str, source: Callable[[Bed, Path], Variables]
) -> None:
    variables = source(aws, tmp_path)
    none: Variables = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
    aws.front.asked.clear()
    told = python(fleet, _USE, INPUTS, image, **none | variables)
    assert told.splitlines()[0] == "400"
    assert "not found" in told
    signed = [one.request.headers["authorization"] for one in aws.front.asked if one.host.service not in ("sts", "sso")]
    assert all("Credential=ASIA" in one or "Credential=AKIA" not in one for one in signed)
    assert {one.library for one in aws.front.asked} >= {"boto3", "obstore", "GDAL"}


@pytest.mark.skipif(WRAPPER is None, reason="libnss-wrapper is not installed")
def test_a_job_outlives_its_credentials_many_times(aws: Bed, tmp_path: Path, image: str) -> None:
    aws.front.keys.lifetime = 20.0
    no_keys: Variables = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "HTTPS_PROXY": None}
    scripts = {f"e{number:02d}": {"sleep": 6, "padding": "x" * (150_000 * (number % 2))} for number in range(16)}
    given = aws.front.keys.given
    with aws.fleet(**aws.names(), **of_a_container(aws, tmp_path), **no_keys) as fleet:
        outcome = fleet.detect(write_tiles(fleet.tiles / "expiring", scripts), "-e", "scripted", folder=tmp_path)
        again = fleet.detect(image, "-e", "bright-objects", "--tile-size", "128", folder=tmp_path)
    assert (outcome.status, names(outcome.features)) == (0, sorted(scripts)), outcome.err
    assert (again.status, bool(again.features)) == (0, True), again.err
    used = {one.request.headers["authorization"].split("/")[0] for one in aws.front.by("obstore")}
    assert len(used) > 4
    assert aws.front.keys.given > given + 4
    assert aws.front.by("runtime")


def test_a_job_waits_for_credentials_that_have_expired(aws: Bed, tmp_path: Path) -> None:
    variables = of_a_file(aws, tmp_path)
    no_keys: Variables = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
    aws.front.keys.lifetime = 25.0
    write_credentials(tmp_path / "credentials", aws.front.keys.temporary())
    with aws.fleet(**variables, **no_keys) as fleet:
        write_credentials(tmp_path / "credentials", aws.front.keys.temporary())
        tiles = write_tiles(fleet.tiles / "waiting", {f"w{number}": {"sleep": 30} for number in range(4)})
        job = started(fleet, tiles, "-e", "scripted")
        wait_until(lambda: "the AWS credentials have expired" in fleet.worker_log())
        checked = fleet.run("check")
        assert (checked.returncode, "the AWS credentials have expired" in checked.stdout) == (2, True), checked.stdout
        aws.front.keys.lifetime = 3600.0
        write_credentials(tmp_path / "credentials", aws.front.keys.temporary())
        assert fleet.run("watch", job).returncode == 0
        done = fleet.run("result", job, "-o", tmp_path / "out.geojson")
        assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.geojson").read_text())
    assert sorted(names(found["features"])) == [f"w{number}" for number in range(4)]


def test_a_client_with_expired_credentials_says_so_in_one_line(aws: Bed, fleet: Fleet, tmp_path: Path) -> None:
    aws.front.keys.lifetime = 0.0
    variables = of_a_file(aws, tmp_path)
    no_keys: Variables = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
    tiles = write_tiles(fleet.tiles / "expired", {"x": {}})
    for source in (tiles, f"s3://{ELSEWHERE}/in/"):
        outcome = fleet.detect(source, "-e", "scripted", folder=tmp_path, **variables, **no_keys)
        assert outcome.status == 2
        assert outcome.err.count("\n") == 1
        assert "credentials have expired" in outcome.err
