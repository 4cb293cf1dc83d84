"""One answer to where S3 and the runtime are, whatever decides it: no library goes anywhere that boto3 does not."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import obstore
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from osml_tasks.aws.s3_access import S3Access
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.imagery.gdal_s3 import S3Session, gdal_path
from osml_tasks.runtime import Runtime, runtime_client
from osml_tasks.service_data import core_session

KEYS = ("AKIDEXAMPLE", "a-secret")
POINT = "arn:aws:s3:us-west-2:123456789012:accesspoint/tiles"
ALIAS = "tiles-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias"
BUCKETS = ("bucket", "buck.et", ALIAS)
SWITCHES: dict[str, dict[str, str]] = {
    "plain": {},
    "FIPS": {"AWS_USE_FIPS_ENDPOINT": "true"},
    "dual stack": {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
    "both": {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
    "regional us-east-1": {"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "regional"},
    "shared us-east-1": {"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "legacy"},
    "VPC endpoint": {"AWS_ENDPOINT_URL_S3": "https://bucket.vpce-0a1b-2c3d.s3.us-west-2.vpce.amazonaws.com"},
    "URL for all": {"AWS_ENDPOINT_URL": "http://127.0.0.1:8333"},
    "URL with a path": {"AWS_ENDPOINT_URL_S3": "https://gateway.example.com/s3"},
    "URL that is ignored": {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
}
REGIONS = ("us-east-1", "us-west-2", "us-gov-west-1", "cn-north-1", "eu-isoe-west-1")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_CA_BUNDLE", "AWS_PROFILE", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def session_in(region: str) -> boto3.Session:
    return boto3.Session(*KEYS, region_name=region, botocore_session=core_session())


def by_boto3(session: boto3.Session, bucket: str) -> str | None:
    """Where a client of its own would send a request; None if it knows no host."""
    chosen = os.environ.get("AWS_S3_US_EAST_1_REGIONAL_ENDPOINT", "regional")
    client = session.client("s3", config=Config(s3={"us_east_1_regional_endpoint": chosen}))
    sent: list[str] = []

    def stop(request: Any, **_: Any) -> None:
        sent.append(request.url)
        raise InterruptedError

    client.meta.events.register("before-send", stop)
    with suppress(InterruptedError, BotoCoreError):
        client.get_object(Bucket=bucket, Key="key")
    return sent[0] if sent else None


def by_obstore(access: S3Access, bucket: str) -> str:
    signed = obstore.sign(access.open_store(bucket), "GET", "key", timedelta(minutes=1))
    assert f"%2F{access.route(bucket).address.region}%2Fs3%2F" in signed
    return signed.partition("?")[0]


def by_gdal(access: S3Access, bucket: str) -> str:
    """What GDAL makes of its settings (port/cpl_aws.cpp, VSIS3HandleHelper)."""
    options = S3Session(access, bucket).get_credential_options()
    if options["AWS_S3_ENDPOINT"] == "s3.amazonaws.com":
        options["AWS_S3_ENDPOINT"] = f"s3.{options['AWS_REGION']}.amazonaws.com"
    label = gdal_path(f"s3://{bucket}/key").split("/")[2]
    scheme = "https" if options["AWS_HTTPS"] == "YES" else "http"
    if options["AWS_VIRTUAL_HOSTING"] == "TRUE" and "." not in label:
        return f"{scheme}://{label}.{options['AWS_S3_ENDPOINT']}/key"
    return f"{scheme}://{options['AWS_S3_ENDPOINT']}/{label}/key"


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("region", REGIONS)
def test_all_go_where_boto3_goes(monkeypatch: pytest.MonkeyPatch, region: str, switch: str) -> None:
    for name, value in SWITCHES[switch].items():
        monkeypatch.setenv(name, value)
    session = session_in(region)
    if region == "eu-isoe-west-1" and "AWS_USE_DUALSTACK_ENDPOINT" in SWITCHES[switch]:
        with pytest.raises(ExtensionConfigurationError, match=r"^no client of s3 .* correct .*DUALSTACK_ENDPOINT"):
            S3Access(session)
        return
    access = S3Access(session)
    if region == "cn-north-1" and "AWS_USE_FIPS_ENDPOINT" in SWITCHES[switch]:
        with pytest.raises(
            ExtensionConfigurationError, match=r"^bucket 'bucket' has no address .*FIPS.* correct .*FIPS"
        ):
            access.route("bucket")
        return
    points = [POINT] if region == "us-west-2" and "URL" not in switch else []
    found = {bucket: url for bucket in (*BUCKETS, *points) if (url := by_boto3(session, bucket))}
    assert found
    for bucket, expected in found.items():
        assert access.route(bucket).address.url == expected.removesuffix("/key")
        assert by_obstore(access, bucket) == expected
        # GDAL alone never goes to the host that all regions share.
        assert by_gdal(access, bucket) == expected.replace("s3.amazonaws.com", "s3.us-east-1.amazonaws.com")
        assert ("s3.amazonaws.com" in expected) is ((region, switch) == ("us-east-1", "shared us-east-1"))
        assert ("fips" in expected) is ("AWS_USE_FIPS_ENDPOINT" in SWITCHES[switch])


_PROFILE = """
[profile there]
services = private
region = eu-west-1
s3 =
    addressing_style = {style}

[services private]
s3 =
    endpoint_url = https://s3.private.example.com
sagemaker_runtime =
    endpoint_url = https://runtime.private.example.com
"""


@pytest.mark.parametrize("style", ["path", "virtual", "auto"])
def test_the_services_and_the_style_of_a_profile_count_for_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, style: str
) -> None:
    (tmp_path / "config").write_text(_PROFILE.format(style=style))
    session = boto3.Session(*KEYS, profile_name="there")
    expected = by_boto3(session, "bucket")
    assert expected is not None
    assert urlsplit(expected).netloc.endswith("s3.private.example.com")
    access = S3Access(session)
    assert by_obstore(access, "bucket") == by_gdal(access, "bucket") == expected
    runtime = runtime_client(session, 1)
    assert isinstance(runtime, Runtime)
    assert runtime.address.url == "https://runtime.private.example.com"


def test_asking_sends_nothing_and_leaves_the_client_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    access = S3Access(session_in("us-west-2"))
    assert access.route("bucket").address.host == "127.0.0.1:1"
    with pytest.raises(Exception, match="Could not connect"):
        access.client.head_bucket(Bucket="bucket")
