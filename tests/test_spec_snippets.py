"""Each snippet of the specification, verbatim in ``spec_snippets.md``, does what it says; ``osml_extensions`` is read
as ``osml_tasks``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.documented import documented
from tests.integration.fleet import REPOSITORY, Fleet, wait_until
from tests.integration.snippets import Block, blocks, one_session, run_python, run_shell

# The snippets poll every 5 or 10 s: in the test all waits are a twentieth as long.
HURRY = "import time; _sleep = time.sleep; time.sleep = lambda seconds: _sleep(seconds / 20)"

SNIPPETS = [
    replace(block, code=block.code.replace("osml_extensions", "osml_tasks"))
    for block in blocks(Path(__file__).with_name("spec_snippets.md"))
]


def _snippets(language: str, word: str = "") -> list[Block]:
    return [block for block in SNIPPETS if block.language == language and word in block.code]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with documented(tmp_path_factory.mktemp("spec"), workers=False) as made:
        yield made


def test_the_python_snippets_run_one_after_the_other(named: Fleet) -> None:
    python = _snippets("python")
    assert len(python) == 6
    script = one_session(python, HURRY)
    done = run_python(script, "spec", named.env, named.tiles)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[:3] == ["Found 1 features", "Total resources: 0", "Cleaned up 0 resources"]
    times = [re.fullmatch(r"(S3 Upload|Total Processing|Queue) Time: (\S+)", line) for line in said[3:]]
    assert [match and match[1] for match in times] == ["S3 Upload", "Total Processing", "Queue"]
    # A payload of 40 bytes goes inline: there is no upload that could take time.
    assert [match is not None and float(match[2]) > 0 for match in times[:2]] == [False, True]
    named.wait_empty()


def test_errors_are_caught_as_the_snippet_catches_them(named: Fleet) -> None:
    (handling,) = _snippets("python", "S3OperationError")
    prepare = """
from io import BytesIO
from osml_tasks import AsyncEndpointConfig, AsyncSMDetector
config = AsyncEndpointConfig(input_bucket="my-input-bucket", output_bucket="my-output-bucket",
    max_retries=0, polling_interval=0.1)
detector = AsyncSMDetector(endpoint="my-endpoint", async_config=config)
payload = BytesIO(b"no JSON")
"""
    wrong_key = {"AWS_SECRET_ACCESS_KEY": "wrong"}
    said = {"Runtime error: Received server error": {}, "S3 operation failed: HEAD s3://my-output-bucket/": wrong_key}
    for expected, changed in said.items():
        done = run_python(prepare + handling.code, "errors", {**named.env, **changed}, named.tiles)
        assert (done.returncode, done.stdout.startswith(expected)) == (0, True), done.stdout + done.stderr
    # With the wrong key nothing could be deleted: the endpoint's failure object.
    wait_until(lambda: len(named.objects()) == 1)
    for found in named.objects():
        bucket, _, key = found.partition("/")
        named.s3.delete_object(Bucket=bucket, Key=key)


def test_the_variables_are_those_of_the_configuration(named: Fleet) -> None:
    (exports,) = _snippets("bash", "export ")
    show = f"{sys.executable} -c 'import osml_tasks; print(osml_tasks.AsyncEndpointConfig().model_dump_json())'"
    done = run_shell(f"{exports.code}\n{show}", {}, named.tiles)
    assert done.returncode == 0, done.stderr
    wanted = {
        "input_bucket": "my-async-input-bucket",
        "output_bucket": "my-async-output-bucket",
        "submission_workers": 8,
        "polling_workers": 4,
        "max_concurrent_jobs": 200,
        "cleanup_policy": "immediate",
        "cleanup_enabled": True,
    }
    assert wanted.items() <= json.loads(done.stdout).items()
    assert len(re.findall("^export ", exports.code, re.MULTILINE)) == len(wanted)


def test_the_test_commands_name_files_that_have_tests() -> None:
    (commands,) = _snippets("bash", "--cov")
    named = re.findall(r"tests/\w+\.py", commands.code)
    assert len(named) == 3
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", *named]
    done = subprocess.run(collect, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert all(f"{name}::" in done.stdout for name in named)


@pytest.mark.parametrize(
    "command", ['pip install -e ".[dev]"', "pre-commit install", "python -m pytest tests/", "--cov=osml_tasks"]
)
def test_the_development_setup_stands_in_contributing(command: str) -> None:
    assert any(command in block.code for block in _snippets("bash"))
    assert command in (REPOSITORY / "CONTRIBUTING.md").read_text()


def test_every_iam_action_stands_in_the_guide() -> None:
    (policy,) = _snippets("json")
    actions = {action for statement in json.loads(policy.code)["Statement"] for action in statement["Action"]}
    guide = (REPOSITORY / "docs/iam_permissions_guide.md").read_text()
    granted = {action for block in blocks(REPOSITORY / "docs/iam_permissions_guide.md") for action in _actions(block)}
    # HeadBucket is a request, which s3:ListBucket allows; there is no action of that name.
    assert actions - granted == {"s3:HeadBucket"}
    assert "`s3:HeadBucket`" in guide


def _actions(block: Block) -> Iterator[str]:
    for statement in json.loads(block.code)["Statement"]:
        yield from [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
