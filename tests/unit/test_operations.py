"""The files and calls in docs/operations.md are what the programs that read them take."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import boto3
import flower.options
import pytest
import yaml
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from flower.events import get_prometheus_metrics
from pydantic import AliasChoices

from osml_tasks.celery_settings import QUEUES
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.redis_keys import PREFIX
from tests.integration.files import files, settings
from tests.integration.fleet import PATIENCE, REPOSITORY
from tests.integration.snippets import blocks

DOCUMENT = REPOSITORY / "docs/operations.md"
FILES = files(DOCUMENT)
UNITS = [name for name in FILES if name.endswith(".service")]
LANGUAGES = {"sh", "python", "ini", "yaml", "json", "text"}


def test_each_block_has_a_language_and_a_reason_not_to_run() -> None:
    found = blocks(DOCUMENT)
    assert {block.language for block in found} == LANGUAGES
    assert all(len(block.not_run) > 10 for block in found if block.not_run is not None)
    assert all(block.code.startswith("# ") for block in found if block.language in ("ini", "yaml"))


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_takes_the_units(unit: str, tmp_path: Path) -> None:
    text = FILES[unit].replace("/opt/osml-tasks/bin", str(Path(sys.executable).parent))
    parsed = ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(text)
    assert parsed["Service"]["ExecStart"].split()[0].startswith(str(Path(sys.executable).parent))
    if shutil.which("systemd-analyze") is None:
        return
    path = tmp_path / Path(unit).name
    path.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    ours = [line for line in done.stderr.splitlines() if path.name in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def test_systemd_stops_workers_through_their_command_and_in_time() -> None:
    unit = settings(re.sub(r"^\[.*\]$", "", FILES["/etc/systemd/system/osml-tasks-worker.service"], flags=re.MULTILINE))
    assert (unit["KillMode"], unit["TimeoutStopSec"]) == ("mixed", "60")


def test_each_variable_is_one_that_is_read() -> None:
    fields = AsyncEndpointConfig.model_fields.values()
    ours = {name for field in fields if isinstance(field.validation_alias, AliasChoices) for name in _names(field)}
    dashboard = {f"FLOWER_{name.upper().replace('-', '_')}" for name in flower.options.default_options}
    known = ours | dashboard | {"CELERY_BROKER_URL", "AWS_DEFAULT_REGION"}
    assert set(settings(FILES["/etc/osml-tasks/environment"])) <= known
    shown = set(re.findall(r"\b(?:FLOWER|ASYNC_SM)_\w+", DOCUMENT.read_text()))
    assert shown <= known


def test_the_way_to_aws_is_told_in_variables_that_compose_hands_on_too() -> None:
    (added,) = [block.code for block in blocks(DOCUMENT) if block.code.startswith("# to be added to")]
    composed = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    handed_on = {*composed["x-aws-variables"], *composed["x-job-variables"]}
    assert {"AWS_CA_BUNDLE", "HTTPS_PROXY", "NO_PROXY"} < set(settings(added)) <= handed_on


def _names(field: Any) -> list[str]:
    return [str(name) for name in field.validation_alias.choices]


def test_prometheus_is_asked_for_what_flower_counts() -> None:
    metrics = {metric.describe()[0].name for metric in vars(get_prometheus_metrics()).values()}
    metrics |= {f"{name}_total" for name in metrics}
    rules = [rule for group in yaml.safe_load(FILES["rules.yml"])["groups"] for rule in group["rules"]]
    assert len(rules) == 4
    for rule in rules:
        expression = rule["expr"]
        assert set(re.findall(r"flower_\w+", expression)) <= metrics
        assert set(re.findall(r'type="([\w-]+)"', expression)) <= {"task-failed", "task-retried", "task-succeeded"}
        assert set(re.findall(r'task="([\w.]+)"', expression)) <= {"osml_tasks.poll", "osml_tasks.cleanup"}
        assert expression.count("(") == expression.count(")")
        assert rule["annotations"]["summary"]
    assert set(re.findall(r"`(flower_\w+)`", DOCUMENT.read_text())) <= metrics
    (scrape,) = yaml.safe_load(FILES["prometheus.yml"])["scrape_configs"]
    environment = settings(FILES["/etc/osml-tasks/environment"])
    assert scrape["static_configs"] == [
        {"targets": [f"{environment['FLOWER_ADDRESS']}:{environment['FLOWER_PORT']}"]},
    ]


# As https://keda.sh/docs/latest/reference/scaledobject-spec and .../scalers/redis-lists have them.
SCALED = {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod", "triggers"}
LIST = {"address", "databaseIndex", "listName", "listLength"}


def test_keda_scales_by_queues_there_are_and_never_to_none() -> None:
    login, *scaled = yaml.safe_load_all(FILES["keda.yml"])
    assert {one["apiVersion"] for one in (login, *scaled)} == {"keda.sh/v1alpha1"}
    assert login["kind"] == "TriggerAuthentication"
    assert [set(secret) for secret in login["spec"]["secretTargetRef"]] == [{"parameter", "name", "key"}]
    for one in scaled:
        (trigger,) = one["spec"]["triggers"]
        assert (one["kind"], set(one["spec"])) == ("ScaledObject", SCALED)
        assert (trigger["type"], set(trigger["metadata"])) == ("redis", LIST)
        assert {type(value) for value in trigger["metadata"].values()} == {str}
        assert trigger["authenticationRef"] == {"name": login["metadata"]["name"]}
        assert one["spec"]["minReplicaCount"] >= 1
        step = trigger["metadata"]["listName"].removeprefix(f"{PREFIX}osml.")
        assert one["spec"]["scaleTargetRef"] == {"name": f"{step}-worker"}
        assert trigger["metadata"]["listName"].removeprefix(PREFIX) in QUEUES


def _model(service: str) -> ServiceModel:
    return ServiceModel(Loader(include_default_search_paths=True).load_service_model(service, "service-2"), service)


def test_application_auto_scaling_takes_the_policy() -> None:
    (policy,) = [json.loads(block.code) for block in blocks(DOCUMENT) if block.language == "json"]
    shape = _model("application-autoscaling").operation_model("PutScalingPolicy").input_shape
    wanted = shape.members["TargetTrackingScalingPolicyConfiguration"]
    report = ParamValidator().validate(policy, wanted)
    assert not report.has_errors(), report.generate_report()


def _calls() -> Iterator[list[str]]:
    for block in blocks(DOCUMENT):
        if block.language == "sh":
            for line in block.code.replace("\\\n", " ").splitlines():
                if line.startswith("aws ") and not line.startswith("aws s3 "):
                    yield shlex.split(line)[1:]


@pytest.mark.parametrize("call", [*_calls()], ids=lambda call: call[1])
def test_aws_has_these_operations_with_these_options(call: list[str]) -> None:
    service, operation, *rest = call
    model = _model(service)
    camel = operation.title().replace("-", "")
    members = model.operation_model(camel).input_shape.members
    options = {part[2:].title().replace("-", "") for part in rest if part.startswith("--")}
    assert options <= set(members)
    assert set(model.operation_model(camel).input_shape.required_members) <= options
    assert service in boto3.Session().get_available_services()


def test_the_picture_is_there_and_small() -> None:
    picture = REPOSITORY / "docs/flower.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size < 200_000


def test_the_compose_file_has_the_same_dashboard() -> None:
    composed = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["flower"]["environment"]
    documented = settings(FILES["/etc/osml-tasks/environment"])
    names = {name for name in documented if name.startswith("FLOWER_")} - {"FLOWER_ADDRESS", "FLOWER_BASIC_AUTH"}
    assert {name: composed[name] for name in names} == {name: documented[name] for name in names}
