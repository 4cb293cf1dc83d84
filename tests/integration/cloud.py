"""An AWS account with users, a role and rights that are enforced: moto's server as a process."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import boto3

from osml_tasks.child_process import ChildProcess
from osml_tasks.local.server import LOOPBACK, free_port
from tests.integration.endpoints import ELSEWHERE, OUTPUTS
from tests.integration.fleet import INPUTS, PATIENCE, clean_environment

REGION = "us-west-2"
EXTERNAL_ID = "external-4711"
ACCOUNT = "123456789012"  # moto's


@dataclass(frozen=True)
class Cloud:
    """Where it is, and who has which rights.

    :ivar role_arn: may do everything with S3; ``caller`` may assume it with ``EXTERNAL_ID``.
    :ivar caller: keys of a user who may do nothing else.
    :ivar stranger: keys of a user who may not even do that.
    :ivar owner: keys of a user who may do everything.
    """

    url: str
    role_arn: str
    caller: dict[str, str]
    stranger: dict[str, str]
    owner: dict[str, str]

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead a process here, with no credentials."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ENDPOINT_URL_STS": self.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def session(self, keys: dict[str, str]) -> boto3.Session:
        """A session of one of the users."""
        return boto3.Session(**keys, region_name=REGION)  # type: ignore[arg-type]


@contextmanager
def cloud(directory: Path) -> Iterator[Cloud]:
    """Start the server, make what there is, and have rights enforced from then on."""
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    server = ChildProcess("moto", command, directory=directory, env=clean_environment())
    server.start()
    try:
        server.wait_ready(lambda: answers(url), within=PATIENCE)
        made = _furnish(url)
        _enforce_rights(url)
        yield made
    finally:
        server.stop()


def answers(url: str) -> bool:
    """Whether moto's server is up."""
    try:
        with urlopen(f"{url}/moto-api/data.json", timeout=30):
            return True
    except (URLError, OSError):
        return False


def _enforce_rights(url: str) -> None:
    plain = {"Content-Type": "text/plain"}
    with urlopen(Request(f"{url}/moto-api/reset-auth", data=b"0", headers=plain)):
        pass


def _furnish(url: str) -> Cloud:
    root = boto3.Session(aws_access_key_id="root", aws_secret_access_key="root", region_name=REGION)
    s3, iam = (root.client(name, endpoint_url=url) for name in ("s3", "iam"))
    for bucket in (INPUTS, OUTPUTS, ELSEWHERE):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    caller = _user(iam, "caller", "sts:AssumeRole")
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/caller"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}},
    }
    role = iam.create_role(RoleName="detector", AssumeRolePolicyDocument=_policy(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName="detector", PolicyName="all", PolicyDocument=_policy(_allow("s3:*")))
    return Cloud(url, role, caller, _user(iam, "stranger", "sts:GetCallerIdentity"), _user(iam, "owner", "*"))


def _user(iam: Any, name: str, action: str) -> dict[str, str]:
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=_policy(_allow(action)))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def _allow(action: str) -> dict[str, str]:
    return {"Effect": "Allow", "Action": action, "Resource": "*"}


def _policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
