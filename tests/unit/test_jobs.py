"""Shards and names."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import botocore.session
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.errors import NotAllowedError
from osml_tasks.jobs import (
    MAX_SHARD_SIZE,
    MAX_SHARDS,
    Job,
    JobOptions,
    Progress,
    Round,
    Shard,
    check_job_id,
    new_job_id,
    output_filename,
    plan,
    shard_size,
    suffix,
)
from osml_tasks.tile import Tile

JOB_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", fullmatch=True)
INDEXES = st.integers(0, 9_999_999)


def job(job_id: str = "job", rounds: tuple[Round, ...] = (Round(1, 1),)) -> Job:
    options = JobOptions(1.0, 1.0, 1.0, 1.0, 1, 1, 1, "immediate")
    return Job(job_id, "ships", rounds, 0.0, "bucket", "prefix/", "out", options)


@lru_cache
def member(name: str) -> dict[str, Any]:
    service = botocore.session.get_session().get_service_model("sagemaker-runtime")
    return dict(service.operation_model("InvokeEndpointAsync").input_shape.members[name].metadata)


@given(st.integers(1, 10_000_000), st.integers(1, 100_000))
def test_shards_are_as_large_as_the_rules_allow(tiles: int, limit: int) -> None:
    size = shard_size(tiles, limit)
    assert 1 <= size <= MAX_SHARD_SIZE
    assert size <= max(1, limit // 4)
    held_back = size in (limit // 4, MAX_SHARD_SIZE, 1)
    assert -(-tiles // size) <= MAX_SHARDS or held_back


def test_a_shard_has_a_hundred_tiles_unless_something_speaks_against_it() -> None:
    assert (shard_size(1000, 1000), shard_size(1000, 100), shard_size(400_000, 10_000)) == (100, 25, 200)


ROUNDS = st.lists(st.builds(Round, tiles=st.integers(1, 99), shard_size=st.integers(1, 60)), min_size=1, max_size=4)


@given(ROUNDS, st.data())
def test_a_plan_cuts_the_manifest_at_the_ends_of_lines(rounds: list[Round], data: st.DataObject) -> None:
    planned = job(rounds=tuple(rounds))
    names = data.draw(st.lists(st.text(max_size=20), min_size=planned.lines, max_size=planned.lines))
    tiles = [Tile(index, f"/tiles/{name}", name) for index, name in enumerate(names)]
    manifest = b"".join(tile.to_json() for tile in tiles)
    shards = list(plan(planned, [tile.to_json() for tile in tiles]))
    read = [Tile.from_json(line) for shard in shards for line in manifest[shard.start : shard.end].split(b"\n") if line]
    assert read == tiles
    assert [shard.shard for shard in shards] == list(range(planned.shards))
    assert [shard.first for shard in shards] == [sum(one.tiles for one in shards[: shard.shard]) for shard in shards]
    assert sum(shards[number].tiles for number in planned.latest_shards) == rounds[-1].tiles
    assert (planned.tiles, planned.lines) == (rounds[0].tiles, len(tiles))


@given(JOB_IDS, INDEXES, st.integers(1, 101), st.integers(0, 99_999))
def test_names_are_what_the_service_takes(job_id: str, index: int, attempt: int, number: int) -> None:
    chosen = {
        "InferenceId": job(job_id).inference_id(index, attempt),
        "Filename": output_filename(index, attempt),
        "S3OutputPathExtension": Shard(job_id, number, 0, 1, 0, 1).name,
    }
    for name, value in chosen.items():
        limits = member(name)
        assert limits["min"] <= len(value) <= limits["max"]
        assert name == "InferenceId" or re.search(limits["pattern"], value)


@pytest.mark.parametrize("text", ["", "../x", "a/b", "a b", "-a", "a" * 41, "ü", None, 3, ["a"]])
def test_what_is_no_job_id_is_refused(text: object) -> None:
    with pytest.raises(NotAllowedError):
        check_job_id(text)


def test_new_job_ids_are_job_ids_and_sort_by_time() -> None:
    early, late = new_job_id(1_000_000_000.0), new_job_id(1_000_000_001.0)
    assert early < late
    assert check_job_id(early) == early


@pytest.mark.parametrize(
    "wrong",
    [
        {"job": "../a"},
        {"shard": -1},
        {"tiles": 1001},
        {"start": 9, "end": 1},
        {"first": "0"},
        {"end": None},
        {"idle": 3},
    ],
)
def test_a_message_that_names_no_shard_is_refused(wrong: dict[str, Any]) -> None:
    right = Shard("job", 0, 0, 1, 0, 10).to_message()
    assert Shard.from_message(right) == Shard("job", 0, 0, 1, 0, 10)
    with pytest.raises(NotAllowedError):
        Shard.from_message(right | wrong)


@given(st.text())
def test_any_suffix_is_safe_in_a_key(name: str) -> None:
    assert re.fullmatch(r"(\.[a-z0-9]{1,8})?", suffix(name))


def test_progress_adds_up() -> None:
    assert Progress(1, 2, 3, 4, 5) + Progress(1, 1, 1, 1, 1) == Progress(2, 3, 4, 5, 6)
    assert Progress(succeeded=2, failed=3).finished == 5
    assert Progress(5, 2, 3, 9, 1).forgiven == Progress(2, 2, 0, 9, 1)


def test_a_job_is_read_back_as_it_was_written() -> None:
    assert Job.from_json(job().to_json()) == job()


def test_a_record_names_the_role_and_an_older_one_has_none() -> None:
    role = "arn:aws:iam::123456789012:role/detector"
    ours = replace(job(), assume_role_arn=role)
    assert Job.from_json(ours.to_json()) == ours
    older = orjson.loads(job().to_json())
    del older["assume_role_arn"]
    assert Job.from_json(orjson.dumps(older)) == job()
