"""What botocore knows of AWS, read in another way: it is the same."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import UnknownServiceError
from botocore.loaders import create_loader

from osml_tasks.service_data import core_session


@pytest.mark.parametrize("kind", ["service-2", "endpoint-rule-set-1", "paginators-1"])
@pytest.mark.parametrize("service", ["s3", "sagemaker", "sagemaker-runtime", "sts"])
def test_a_service_is_described_as_by_botocore(service: str, kind: str) -> None:
    # A session's own would be changed by the clients that it has made.
    ours, theirs = (
        loader.load_service_model(service, kind)
        for loader in (core_session().get_component("data_loader"), create_loader())
    )
    assert ours == theirs
    # The order of members is that of what is signed and sent.
    assert json.dumps(ours) == json.dumps(theirs)


def test_the_same_services_are_available() -> None:
    assert boto3.Session(botocore_session=core_session()).get_available_services() == (
        boto3.Session().get_available_services()
    )


def test_a_service_that_is_none_is_said_to_be_unknown() -> None:
    with pytest.raises(UnknownServiceError, match="sagemakr"):
        core_session().create_client("sagemakr", region_name="us-west-2")


def test_descriptions_of_the_users_own_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "s3" / "2006-03-01" / "service-2.json"
    own.parent.mkdir(parents=True)
    own.write_text('{"metadata": {"apiVersion": "their own"}}')
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    model = core_session().get_component("data_loader").load_service_model("s3", "service-2")
    assert model["metadata"]["apiVersion"] == "their own"
