"""The steps of a job's life in its record, each of them one in Redis: a worker that dies leaves no job half moved.

What a late worker writes changes nothing: a job ends once, a finished shard stays finished, and what was
done for one round of a job does not end the next.
"""

from __future__ import annotations

from typing import Any

from osml_tasks.jobs import Job, JobState, Progress

# KEYS[1] is the job's record in each of them.
# Writes the fields in ARGV[3] and on into a job that has not ended and, unless it is 0, has ARGV[1] rounds;
# ends it with that if ARGV[2] is 1.
_WRITE = """
local job, ended = unpack(redis.call('HMGET', KEYS[1], 'job', 'ended'))
if not job or ended then return 0 end
if ARGV[1] ~= '0' and #cjson.decode(job).rounds ~= tonumber(ARGV[1]) then return 0 end
if ARGV[2] == '1' then redis.call('HSET', KEYS[1], 'ended', '1') end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return 1
"""
# Notes its first invocation at ARGV[1], and moves it on from state ARGV[2] to ARGV[3].
_START = """
if redis.call('HEXISTS', KEYS[1], 'job') == 0 then return end
redis.call('HSETNX', KEYS[1], 'started', ARGV[1])
if redis.call('HGET', KEYS[1], 'state') == ARGV[2] then redis.call('HSET', KEYS[1], 'state', ARGV[3]) end
"""
# Notes at ARGV[1] that nothing more happens to an ended job.
_CLOSE = "if redis.call('HEXISTS', KEYS[1], 'ended') == 1 then redis.call('HSETNX', KEYS[1], 'finished', ARGV[1]) end"
# Writes 1 into the fields in ARGV of a job that has ended.
_MARK = """
if redis.call('HEXISTS', KEYS[1], 'ended') == 0 then return 0 end
for _, name in ipairs(ARGV) do redis.call('HSET', KEYS[1], name, '1') end
return 1
"""
# Has an ended job go on as ARGV[1], in state ARGV[2], with other progress (KEYS[2]) of some shards in ARGV[3] and
# on: a completed one with one round more, any other with the rounds that it has.
_REOPEN = """
local state, finished, removed, job = unpack(redis.call('HMGET', KEYS[1], 'state', 'finished', 'removed', 'job'))
if not finished or removed then return 0 end
local grown = #cjson.decode(ARGV[1]).rounds - #cjson.decode(job).rounds
if grown ~= (state == 'completed' and 1 or 0) then return 0 end
redis.call('HDEL', KEYS[1], 'ended', 'finished', 'assembled', 'fetched', 'error', 'misconfigured', 'features')
redis.call('HSET', KEYS[1], 'job', ARGV[1], 'state', ARGV[2])
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
"""
# Writes ARGV[2] as progress (KEYS[2]) of shard ARGV[1]; of a finished one only if ARGV[3] says that this is, too.
_ADVANCE = """
local before = redis.call('HGET', KEYS[2], ARGV[1])
if not before or ARGV[3] == '1' or cjson.decode(before)[5] == 0 then
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
"""


class Transitions:
    """The steps as scripts. Thread-safe.

    :param redis: a client of the server that holds the fleet's state.
    """

    def __init__(self, redis: Any) -> None:
        self._write = redis.register_script(_WRITE)
        self._start = redis.register_script(_START)
        self._close = redis.register_script(_CLOSE)
        self._mark = redis.register_script(_MARK)
        self._reopen = redis.register_script(_REOPEN)
        self._advance = redis.register_script(_ADVANCE)

    def write(self, key: str, fields: dict[str, str], *, rounds: int = 0, end: bool = False) -> bool:
        """Write fields into a job that has not ended; says whether it had not.

        :param rounds: how many the job has to have, too; 0 for any number.
        :param end: whether that ends it.
        """
        parts = [part for field in fields.items() for part in field]
        return bool(self._write(keys=[key], args=[rounds, int(end), *parts]))

    def start(self, key: str, now: float) -> None:
        """Note a job's first invocation, and that it is running if it was queued."""
        self._start(keys=[key], args=[now, JobState.QUEUED.value, JobState.RUNNING.value])

    def close(self, key: str, now: float) -> None:
        """Note, once, that an ended job has been cleaned up after."""
        self._close(keys=[key], args=[now])

    def mark(self, key: str, *names: str) -> bool:
        """Note something of an ended job; says whether it has ended."""
        return bool(self._mark(keys=[key], args=list(names)))

    def reopen(self, key: str, job: Job, progress_key: str, progress: dict[int, bytes]) -> bool:
        """Have an ended job go on; says whether it was as expected, and nothing of it deleted."""
        shards = [part for shard in progress.items() for part in shard]
        return bool(self._reopen(keys=[key, progress_key], args=[job.to_json(), JobState.QUEUED.value, *shards]))

    def advance(self, key: str, progress_key: str, shard: int, text: bytes, progress: Progress) -> None:
        """Write down how far a shard has come, unless it is finished and this says less."""
        self._advance(keys=[key, progress_key], args=[shard, text, int(progress.shards_finished > 0)])
