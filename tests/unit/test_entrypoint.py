"""What the image's entry point does to the environment, with and without the local S3 server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.compose_file import ROOT

OF_AWS = {
    "ARTIFACT_BUCKET": "ours",
    "AWS_ACCESS_KEY_ID": "a-key",
    "AWS_SECRET_ACCESS_KEY": "a-secret",
    "AWS_SESSION_TOKEN": "a-token",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "ASYNC_SM_ASSUME_ROLE_ARN": "a-role",
    "ASYNC_SM_POLLING_INTERVAL": "7",
}
WAY = {
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_USE_DUALSTACK_ENDPOINT": "true",
    "AWS_CA_BUNDLE": "/app/ca-bundle.pem",
    "HTTPS_PROXY": "http://proxy:3128",
    "NO_PROXY": "here",
    "ASYNC_SM_REQUEST_PAYER": "requester",
}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory of programs before all others; there is no server ``local-s3`` as far as they know."""
    _say_whether_it_is_there(tmp_path, False)
    return tmp_path


def _say_whether_it_is_there(programs: Path, there: bool) -> None:
    getent = programs / "getent"
    getent.write_text(f'#!/bin/sh\n[ "$*" = "hosts local-s3" ] && exit {0 if there else 2}\n')
    getent.chmod(0o755)


def _run(programs: Path, variables: dict[str, str], *command: str) -> str:
    env = {"PATH": f"{programs}:/usr/bin:/bin"} | variables
    entrypoint = ROOT / "compose/entrypoint.sh"
    return subprocess.run([entrypoint, *command], env=env, capture_output=True, text=True, check=True).stdout


def _environment(programs: Path, variables: dict[str, str]) -> dict[str, str]:
    said = dict(line.split("=", 1) for line in _run(programs, variables, "env").splitlines())
    return {name: value for name, value in said.items() if name not in ("PATH", "PWD", "_", "SHLVL", "OLDPWD")}


def test_in_front_of_aws_nothing_is_changed(programs: Path) -> None:
    assert _environment(programs, OF_AWS | WAY) == OF_AWS | WAY
    assert _environment(programs, {}) == {}


def test_a_bundle_without_a_name_is_none(programs: Path) -> None:
    assert _environment(programs, {"AWS_CA_BUNDLE": ""}) == {}


def test_beside_the_local_servers_nothing_is_needed(programs: Path) -> None:
    _say_whether_it_is_there(programs, True)
    assert _environment(programs, {"ARTIFACT_BUCKET": ""}) == {
        "ARTIFACT_BUCKET": "osml-input",
        "ASYNC_SM_OUTPUT_BUCKET": "osml-output",
        "ASYNC_SM_POLLING_INTERVAL": "0.5",
        "ASYNC_SM_MAX_POLLING_INTERVAL": "2",
        "AWS_ENDPOINT_URL_S3": "http://local-s3:8333",
        "AWS_ENDPOINT_URL_SAGEMAKER": "http://local-endpoint:8080",
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "http://local-endpoint:8080",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "only-in-this-network",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "local-s3,local-endpoint",
        "no_proxy": "local-s3,local-endpoint",
    }


def test_there_options_are_kept_and_keys_for_aws_go_nowhere(programs: Path) -> None:
    _say_whether_it_is_there(programs, True)
    seen = _environment(programs, OF_AWS | WAY)
    assert seen["ARTIFACT_BUCKET"] == "ours"
    assert seen["ASYNC_SM_POLLING_INTERVAL"] == "7"
    assert "ASYNC_SM_MAX_POLLING_INTERVAL" not in seen
    assert seen["NO_PROXY"] == "here,local-s3,local-endpoint"
    assert not {"a-key", "a-secret", "a-token", "a-role", "eu-central-1"} & set(seen.values())


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_there_neither_a_proxy_nor_names_of_aws_are_in_the_way(programs: Path, name: str) -> None:
    _say_whether_it_is_there(programs, True)
    way = {variable: value for variable, value in WAY.items() if variable != "NO_PROXY"}
    seen = _environment(programs, way | {"http_proxy": "http://proxy:3128", name: "here"})
    assert not {"AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_CA_BUNDLE"} & set(seen)
    assert seen["NO_PROXY"] == seen["no_proxy"] == "here,local-s3,local-endpoint"
    program = (
        "from botocore.utils import get_environ_proxies as proxies; "
        "print([proxies(f'http://{host}:8333') for host in ('local-s3', 'local-endpoint')])"
    )
    assert _run(programs, seen, sys.executable, "-c", program) == "[{}, {}]\n"


def test_arguments_reach_the_command_as_they_are(programs: Path) -> None:
    assert _run(programs, {}, "printf", "%s|", "a b", "*", "") == "a b|*||"
