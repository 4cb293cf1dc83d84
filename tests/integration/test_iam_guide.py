"""The policies of the guide are enough, and no S3 action of them can be left out.

The S3 server enforces them; the local endpoint does not look at who invokes it, so the actions of
SageMaker are not proven here, nor those of KMS, which that server does not have.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.integration.fleet import PATIENCE, REPOSITORY, names, write_tiles
from tests.integration.iam import (
    ENDPOINTS,
    INPUTS,
    OUTPUTS,
    Grant,
    PolicedStack,
    grants,
    less,
    moved,
    policed_stack,
    policies,
    policy_of,
)
from tests.integration.ship_scene import write_scene

FLEET, ENDPOINT_ROLE, OPTIONAL, KMS = policies((REPOSITORY / "docs/iam_permissions_guide.md").read_text())

ALLOWED, UNREADABLE, UNDELETABLE = ENDPOINTS
OWN_OBJECTS = f"arn:aws:s3:::{INPUTS}/async-inference/input/*"
ANSWERS = f"arn:aws:s3:::{OUTPUTS}/{ALLOWED}/*"
READ_ANSWERS, DELETE_ANSWERS = ("s3:GetObject", ANSWERS), ("s3:DeleteObject", ANSWERS)

# What `osml-tasks check` says where the action is not allowed.
CHECKED: dict[Grant, str] = {
    ("s3:ListBucket", f"arn:aws:s3:::{INPUTS}"): f"bucket {INPUTS}: .* refuses access: .*403",
    ("s3:ListBucket", f"arn:aws:s3:::{OUTPUTS}"): f"bucket {OUTPUTS}: .* refuses access: .*403",
    ("s3:GetObject", OWN_OBJECTS): f"S3 by obstore: GET s3://{INPUTS}/.* was denied",
    ("s3:PutObject", OWN_OBJECTS): f"S3 by obstore: PUT s3://{INPUTS}/.* was denied",
    (
        "s3:DeleteObject",
        OWN_OBJECTS,
    ): f"S3 by boto3: s3://{INPUTS}/.* cannot be deleted: allow s3:DeleteObject there .*AccessDenied",
}

Clients = dict[str, subprocess.Popen[str]]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicedStack]:
    """Workers have the whole policy where the first endpoint writes, and one action less where the others do."""
    workers = [FLEET, moved(less(FLEET, READ_ANSWERS), UNREADABLE), moved(less(FLEET, DELETE_ANSWERS), UNDELETABLE)]
    with policed_stack(
        tmp_path_factory.mktemp("iam"),
        workers=workers,
        client=less(FLEET, READ_ANSWERS),
        endpoint=[moved(ENDPOINT_ROLE, prefix) for prefix in ENDPOINTS],
    ) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def clients(stack: PolicedStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Jobs on the other two, started before all tests: a refusal ends a job only after half a minute."""
    directory = tmp_path_factory.mktemp("jobs")
    tiles = write_tiles(directory / "tiles", {"one": {}, "two": {}})
    started = {
        endpoint: stack.client.start("detect", tiles, "-e", endpoint, "-o", directory / endpoint)
        for endpoint in (UNREADABLE, UNDELETABLE)
    }
    try:
        yield started
    finally:
        for client in started.values():
            client.kill()
            client.communicate()


def test_the_policies_are_enough(stack: PolicedStack, tmp_path: Path) -> None:
    stack.root.s3.put_object(Bucket=INPUTS, Key="imagery/d", Body=b'{"name": "d"}')
    # One fails and leaves a failure object first, one is uploaded in parts.
    tiles = write_tiles(
        tmp_path / "tiles", {"a-fails-once": {"fail_first": 1}, "b": {"padding": "x" * 12_000_000}, "c": {}}
    )
    outcome = stack.client.detect(tiles, f"s3://{INPUTS}/imagery/", "-e", ALLOWED, folder=tmp_path)
    assert (outcome.status, names(outcome.features)) == (0, ["a-fails-once", "b", "c", "d"]), outcome.err
    assert stack.root.stats(ALLOWED)["failed"] == 1
    assert not [key for key in stack.root.objects() if outcome.report["job_id"] in key]


def test_optional_actions_take_a_warning_away(stack: PolicedStack, tmp_path: Path) -> None:
    tiles = write_tiles(tmp_path / "tiles", {"a": {}})
    with_them = stack.store.keys("optional", FLEET, OPTIONAL)
    outcome = stack.client.detect(tiles, "-e", ALLOWED, folder=tmp_path, **with_them)
    assert (outcome.status, "interrupted uploads" in outcome.err) == (0, False)
    outcome = stack.client.detect(tiles, "-e", ALLOWED, folder=tmp_path)
    assert (outcome.status, "interrupted uploads" in outcome.err) == (0, True)


def test_images_outside_of_the_input_prefix_take_an_action_more_of_client_and_workers(
    stack: PolicedStack, tmp_path: Path
) -> None:
    write_scene(tmp_path / "scene.tif")
    image = f"s3://{INPUTS}/images/scene.tif"
    stack.root.s3.put_object(Bucket=INPUTS, Key="images/scene.tif", Body=(tmp_path / "scene.tif").read_bytes())
    outcome = stack.client.detect(image, "-e", ALLOWED, "--cut", folder=tmp_path)
    assert (outcome.status, f"image '{image}' cannot be read" in outcome.err) == (2, True), outcome.err
    reader = stack.store.keys("reader", FLEET, policy_of([("s3:GetObject", f"arn:aws:s3:::{INPUTS}/images/*")]))
    outcome = stack.client.detect(image, "-e", ALLOWED, "--cut", folder=tmp_path, **reader, ASYNC_SM_MAX_RETRIES="0")
    assert outcome.status == 3, outcome.err
    assert {failure["reason"] for failure in outcome.report["failures"]} == {"input"}
    assert all("cannot be read" in failure["error"] for failure in outcome.report["failures"])


def test_nothing_else_is_allowed(stack: PolicedStack) -> None:
    s3 = stack.workers.s3
    stack.root.s3.put_object(Bucket=INPUTS, Key="imagery/e", Body=b"mine")
    calls = [
        lambda: s3.get_object(Bucket=INPUTS, Key="imagery/e"),
        lambda: s3.delete_object(Bucket=INPUTS, Key="imagery/e"),
        lambda: s3.put_object(Bucket=INPUTS, Key="imagery/f", Body=b""),
        lambda: s3.put_object(Bucket=OUTPUTS, Key=f"{ALLOWED}/output/f", Body=b""),
        lambda: s3.create_bucket(Bucket="another"),
    ]
    for call in calls:
        with pytest.raises(ClientError, match="AccessDenied"):
            call()


def test_every_s3_action_of_the_policy_is_proven_here() -> None:
    in_s3 = {grant for grant in grants(FLEET) if grant[0].startswith("s3:")}
    assert in_s3 == {*CHECKED, READ_ANSWERS, DELETE_ANSWERS}


def test_the_key_may_be_used_for_what_s3_needs_of_it_and_no_more() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html: an upload in parts decrypts."""
    assert {action for action, _ in grants(KMS)} == {"kms:GenerateDataKey", "kms:Decrypt"}
    assert all(resource.startswith("arn:aws:kms:") and "*" not in resource for _, resource in grants(KMS))


def test_check_finds_the_policy_enough(stack: PolicedStack) -> None:
    checked = stack.client.run("check", "-e", ALLOWED)
    assert (checked.returncode, "FAIL" in checked.stdout) == (0, False), checked.stdout


@pytest.mark.parametrize("grant", CHECKED, ids=" ".join)
def test_check_names_the_action_that_is_missing(stack: PolicedStack, grant: Grant) -> None:
    user = re.sub(r"\W+", "-", " ".join(grant))
    checked = stack.client.run("check", **stack.store.keys(user, less(FLEET, grant)))
    failures = [line for line in checked.stdout.splitlines() if line.startswith("FAIL")]
    assert (checked.returncode, len(failures)) == (2, 1), checked.stdout + checked.stderr
    assert re.match(f"FAIL  {CHECKED[grant]}", failures[0])


def test_outputs_that_cannot_be_deleted_stay_and_are_named(stack: PolicedStack, clients: Clients) -> None:
    _, err = clients[UNDELETABLE].communicate(timeout=PATIENCE)
    assert clients[UNDELETABLE].returncode == 0, err
    assert len(stack.objects_under(f"{OUTPUTS}/{UNDELETABLE}/output/")) == 2
    left = stack.client.run("cleanup")
    named = rf"2 of job \S+ cannot be deleted, tried \d+ times: s3://{OUTPUTS}/{UNDELETABLE}/output/.*AccessDenied"
    assert (left.returncode, re.search(named, left.stderr) is not None) == (2, True), left.stderr


def test_outputs_that_cannot_be_read_fail_the_job(stack: PolicedStack, clients: Clients) -> None:
    _, err = clients[UNREADABLE].communicate(timeout=PATIENCE)
    assert clients[UNREADABLE].returncode == 2
    assert re.search(rf"failed: GET s3://{OUTPUTS}/{UNREADABLE}/output/.* was denied: AccessDenied", err), err
    assert stack.objects_under(f"{OUTPUTS}/{UNREADABLE}/") == []
