"""docker-compose.yml, .env.example and the Dockerfile: what can be told without running them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
from packaging.requirements import Requirement
from pydantic import AliasChoices

from osml_tasks.cli import _COMMANDS
from osml_tasks.config import AsyncEndpointConfig
from tests.compose_file import COMPOSE_FILE, ROOT, MissingError, example, interpolate, mentioned, services

TEXT = COMPOSE_FILE.read_text()
PASSWORDS = {"BROKER_PASSWORD": "secret-b", "FLOWER_PASSWORD": "secret-f"}
SERVICES = services(TEXT, PASSWORDS)
FLEET = {"broker", "submit-worker", "poll-worker", "assemble-worker", "beat", "flower"}
WORKERS = {"submit-worker", "poll-worker", "assemble-worker"}


def _definitions(key: str) -> dict[str, Any]:
    return {name: service.definition.get(key) for name, service in SERVICES.items()}


def test_the_file_is_one_by_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE_FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a $$B ${A} $A", "a $B one one"),
        ("${EMPTY:-two}${NONE:-${A}}", "twoone"),
        ("redis://:${A:?why}@x ${NONE:-}", "redis://:one@x "),
        ("${NONE:-{{x}}}", "{{x}}"),
        ("${A:+$A two}${EMPTY:+three}${NONE:+four}", "one two"),
    ],
)
def test_variables_are_put_in(text: str, result: str) -> None:
    assert interpolate(text, {"A": "one", "EMPTY": ""}) == result


def test_the_fleet_runs_without_a_profile_and_the_local_stack_and_the_command_only_with_theirs() -> None:
    profiles = _definitions("profiles")
    assert {name for name, of in profiles.items() if of is None} == FLEET
    assert {name for name, of in profiles.items() if of == ["local"]} == {"local-s3", "local-endpoint"}
    assert {name for name, of in profiles.items() if of == ["cli"]} == {"cli"}


@pytest.mark.parametrize("missing", PASSWORDS)
def test_a_password_has_no_default(missing: str) -> None:
    with pytest.raises(MissingError, match=f"{missing} is missing a value: set it in .env"):
        services(TEXT, PASSWORDS | {missing: ""})


def test_the_example_has_every_variable_and_no_other() -> None:
    assert set(example(with_defaults=True)) == mentioned(TEXT) | {"COMPOSE_PROFILES"}


def test_every_option_reaches_workers_and_the_command() -> None:
    fields = AsyncEndpointConfig.model_fields.values()
    aliases = [field.validation_alias for field in fields]
    names = {str(name) for alias in aliases if isinstance(alias, AliasChoices) for name in alias.choices}
    for service in (*WORKERS, "cli"):
        assert names <= set(SERVICES[service].definition["environment"]), service


def test_the_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = example(with_defaults=True) | {"ARTIFACT_BUCKET": "one", "ASYNC_SM_OUTPUT_BUCKET": "two"}
    monkeypatch.setattr("os.environ", {})
    defaults = AsyncEndpointConfig(input_bucket="one", output_bucket="two")
    monkeypatch.setattr("os.environ", shown)
    assert AsyncEndpointConfig() == defaults
    in_file = dict(re.findall(r"\$\{(\w+):-([^}$]*)\}", TEXT))
    # Mounted in place of a file that there need not be.
    assert (in_file.pop("AWS_CA_BUNDLE"), shown["AWS_CA_BUNDLE"]) == ("/dev/null", "")
    assert {name: shown[name] for name in in_file} == in_file


WAY_TO_AWS = {"AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_CA_BUNDLE", "HTTPS_PROXY", "NO_PROXY"}


def test_the_way_to_aws_is_handed_on_to_all_who_go_it() -> None:
    given = services(TEXT, PASSWORDS | dict.fromkeys(WAY_TO_AWS, "/given"))
    told = {
        name for name, service in given.items() if WAY_TO_AWS - {"ASYNC_SM_REQUEST_PAYER"} <= set(service.environment)
    }
    assert told == WORKERS | {"cli"}
    for name in told:
        environment = given[name].environment
        assert {environment[variable] for variable in WAY_TO_AWS - {"AWS_CA_BUNDLE"}} == {"/given"}
        assert "ASYNC_SM_REQUEST_PAYER" in given[name].definition["environment"]
        # Of the host's file the container has another path.
        assert f"/given:{environment['AWS_CA_BUNDLE']}:ro" in given[name].definition["volumes"]
        assert SERVICES[name].environment["AWS_CA_BUNDLE"] == ""
        assert "/dev/null:/app/ca-bundle.pem:ro" in SERVICES[name].definition["volumes"]
        assert "./celeryconfig.py:/app/celeryconfig.py:ro" in SERVICES[name].definition["volumes"]


def test_nobody_gets_a_secret_that_is_not_for_them() -> None:
    given = example(with_defaults=True) | {name: f"<{name}>" for name in mentioned(TEXT)} | PASSWORDS
    whole = services(TEXT, given | {"CELERY_BROKER_URL": ""})

    def told(secret: str) -> set[str]:
        return {name for name, service in whole.items() if secret in json.dumps(dict(service.environment))}

    assert told("secret-b") == FLEET | {"cli"}
    assert told("secret-f") == {"flower"}
    for secret in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "ASYNC_SM_EXTERNAL_ID"):
        assert told(f"<{secret}>") == WORKERS | {"cli"}


def test_no_secret_stands_on_a_command_line() -> None:
    for service in SERVICES.values():
        shown = json.dumps([service.command, service.health if service.name != "cli" else []])
        assert not any(password in shown for password in PASSWORDS.values()), service.name


def test_only_flower_listens_on_the_host_and_only_on_loopback() -> None:
    ports = _definitions("ports")
    assert {name for name, of in ports.items() if of} == {"flower"}
    assert ports["flower"] == ["127.0.0.1:5555:5555"]
    assert not any(_definitions("network_mode").values())
    assert not any(_definitions("privileged").values())


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_may_do_no_more_than_it_has_to(name: str) -> None:
    definition = SERVICES[name].definition
    assert definition["read_only"] is True
    assert definition["init"] is True
    assert definition["cap_drop"] == ["ALL"]
    assert definition["security_opt"] == ["no-new-privileges:true"]
    assert definition["logging"]["options"] == {"max-size": "20m", "max-file": "5"}
    assert "docker.sock" not in json.dumps(definition)
    if name != "cli":
        assert re.fullmatch(r"\d+[mg]", definition["mem_limit"])
        assert SERVICES[name].health
        assert definition["restart"] == "unless-stopped"


def test_any_number_of_workers_may_run_and_one_beat() -> None:
    for name in WORKERS:
        assert "container_name" not in SERVICES[name].definition
        assert re.search(r" -n \w+@%h ", f"{' '.join(SERVICES[name].command)} "), "nodes of one name are one worker"
    assert SERVICES["beat"].definition["deploy"] == {"replicas": 1}
    served = [part for name in WORKERS for part in SERVICES[name].command if part.startswith("osml.")]
    assert sorted(",".join(served).split(",")) == ["osml.assemble", "osml.cleanup", "osml.poll", "osml.submit"]


def test_each_image_is_of_one_version_and_built_once() -> None:
    images: dict[str, list[Mapping[str, Any]]] = {}
    for service in SERVICES.values():
        images.setdefault(service.definition["image"], []).append(service.definition)
    for image, users in images.items():
        if image.startswith("osml-tasks"):
            assert len([user for user in users if "build" in user]) == 1
            assert all(user.get("pull_policy") == "never" for user in users if "build" not in user)
        else:
            assert re.search(r":\d+\.\d+\.\d+", image), image
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", dockerfile := (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base)
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile, re.MULTILINE)
    assert {source for source, _ in stages} <= {"${PYTHON_IMAGE}", *(name for _, name in stages)}


def _pinned(name: str) -> dict[str, str]:
    lines = (ROOT / "compose" / name).read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith(("#", "-r ")))
    return {package.lower().replace("_", "-"): version for package, version in pins.items()}


def test_the_images_have_what_the_package_asks_for_in_one_version_each() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    fleet = _pinned("requirements.txt")
    local = fleet | _pinned("requirements-local.txt")
    for pinned, asked in (
        (fleet, project["dependencies"] + extras["flower"] + extras["formats"] + extras["imagery"]),
        (local, extras["local"]),
    ):
        others = (one for one in map(Requirement, asked) if one.name != project["name"])
        for requirement in others:
            assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_the_commands_in_the_readme_are_there() -> None:
    text = (ROOT / "compose/README.md").read_text()
    called = re.findall(r"docker compose run --rm cli (\w+)", text)
    assert called
    assert set(called) <= set(_COMMANDS)
    scaled = set(re.findall(r"--scale ([\w-]+)=", text))
    assert scaled
    assert scaled <= set(SERVICES)
    assert set(re.findall(r"`([A-Z][A-Z_]+)[=`]", text)) <= set(example(with_defaults=True))
