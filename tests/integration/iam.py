"""A stack where everyone has keys of their own, with no more than the policies that are given to them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3

from osml_tasks.local.broker import Broker
from osml_tasks.local.endpoint_settings import EndpointSettings
from osml_tasks.local.object_store import ObjectStore
from tests.integration.endpoints import SCRIPTED, serve
from tests.integration.fleet import ENDPOINTS_READY, WORKERS_READY, Fleet, start_python

INPUTS, OUTPUTS = "iam-in", "iam-out"
ENDPOINTS = ("async-inference", "unreadable", "undeletable")
"""Each endpoint writes under a prefix of its own name."""

Policy = Mapping[str, Any]
Grant = tuple[str, str]
"""An action and a resource."""

_JSON = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)


def policies(guide: str) -> list[Policy]:
    """The policies of the guide, for the buckets of this stack."""
    ours = guide.replace("my-input-bucket", INPUTS).replace("my-output-bucket", OUTPUTS)
    return [json.loads(block) for block in _JSON.findall(ours)]


def grants(policy: Policy) -> list[Grant]:
    """What a policy allows, one by one."""
    return [
        (action, resource)
        for statement in policy["Statement"]
        for action in _listed(statement["Action"])
        for resource in _listed(statement["Resource"])
    ]


def policy_of(allowed: Iterable[Grant]) -> Policy:
    """A policy that allows this and nothing else."""
    statements = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in allowed]
    return {"Version": "2012-10-17", "Statement": statements}


def less(policy: Policy, grant: Grant) -> Policy:
    """A policy with one action on one resource taken away."""
    return policy_of(kept for kept in grants(policy) if kept != grant)


def moved(policy: Policy, prefix: str) -> Policy:
    """A policy for another prefix of the output bucket."""
    here, there = f"{OUTPUTS}/{ENDPOINTS[0]}/", f"{OUTPUTS}/{prefix}/"
    return dict(json.loads(json.dumps(policy).replace(here, there)))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


class PolicedStore(ObjectStore):
    """The S3 server of the local stack, with users and their policies."""

    def _flags(self) -> list[str]:
        return [*super()._flags(), "-s3.iam.readOnly=false"]

    def keys(self, user: str, *allowed: Policy) -> dict[str, str]:
        """The environment of a new user who may do what some policies allow."""
        iam = boto3.client(
            "iam",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.env["AWS_REGION"],
        )
        iam.create_user(UserName=user)
        for number, policy in enumerate(allowed):
            # Managed, because weed knows fewer actions where a policy is inline.
            made = iam.create_policy(PolicyName=f"{user}-{number}", PolicyDocument=json.dumps(policy))
            iam.attach_user_policy(UserName=user, PolicyArn=made["Policy"]["Arn"])
        key = iam.create_access_key(UserName=user)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


@dataclass(frozen=True)
class PolicedStack:
    """Servers, workers and a client, each with keys of its own.

    :ivar client: with the client's keys.
    :ivar workers: with the workers' keys.
    :ivar root: with keys that open everything.
    """

    store: PolicedStore
    client: Fleet
    workers: Fleet
    root: Fleet

    def objects_under(self, prefix: str) -> list[str]:
        """Objects as ``bucket/key`` that begin like this."""
        return [name for name in self.root.objects() if name.startswith(prefix)]


@contextmanager
def policed_stack(
    directory: Path, *, workers: Iterable[Policy], client: Policy, endpoint: Iterable[Policy]
) -> Iterator[PolicedStack]:
    """Bring it up with what each may do."""
    with ExitStack() as running:
        broker = running.enter_context(Broker(directory / "broker"))
        store = running.enter_context(PolicedStore(directory / "s3", (INPUTS, OUTPUTS), disposable=True))
        endpoints = start_python(
            running,
            "endpoints",
            ["-m", "tests.integration.iam"],
            directory,
            store.env | store.keys("endpoint", *endpoint),
            ENDPOINTS_READY,
        )
        url = ENDPOINTS_READY.findall(endpoints.log_text())[0]
        env = {
            **store.env,
            "CELERY_BROKER_URL": broker.url,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url,
            "AWS_ENDPOINT_URL_SAGEMAKER": url,
            "ARTIFACT_BUCKET": INPUTS,
            "ASYNC_SM_OUTPUT_BUCKET": OUTPUTS,
            "ASYNC_SM_POLLING_INTERVAL": "0.2",
            "ASYNC_SM_MAX_POLLING_INTERVAL": "0.5",
            "ASYNC_SM_SUBMISSION_WORKERS": "1",
        }
        workers_env = env | store.keys("workers", *workers)
        fleet = start_python(running, "workers", ["-m", "osml_tasks", "worker"], directory, workers_env, WORKERS_READY)
        root = Fleet(env, url, directory, fleet.log_text)
        yield PolicedStack(
            store, replace(root, env=env | store.keys("client", client)), replace(root, env=workers_env), root
        )


def _settings(name: str) -> EndpointSettings:
    return EndpointSettings(
        name=name,
        model=SCRIPTED,
        concurrency=4,
        s3_output_path=f"s3://{OUTPUTS}/{name}/output",
        s3_failure_path=f"s3://{OUTPUTS}/{name}/failure",
    )


if __name__ == "__main__":
    asyncio.run(serve([_settings(name) for name in ENDPOINTS]))
