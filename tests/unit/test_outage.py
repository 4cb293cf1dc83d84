"""Waiting for a server with the fleet's state that is away or full, and giving up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from osml_tasks.errors import JobNotFoundError
from osml_tasks.outage import PASSING, Patience, insist, recognise_refusals
from osml_tasks.stopping import Stop


def answers(*outcomes: Exception | str) -> Callable[[], str]:
    """A question that is answered in this way, call by call; the last outcome stays."""
    left = list(outcomes)

    def ask() -> str:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return ask


@pytest.mark.parametrize("trouble", [NoConnectionError("gone"), OutOfMemoryError("full")])
def test_a_step_is_repeated_until_the_server_takes_it(trouble: Exception) -> None:
    assert insist(answers(trouble, "done"), Stop()) == "done"


def test_a_step_is_given_up_in_time() -> None:
    with pytest.raises(NoConnectionError):
        insist(answers(NoConnectionError("gone")), Stop(), seconds=-1)


def test_a_worker_that_stops_does_not_wait() -> None:
    stop = Stop()
    stop.begin()
    with pytest.raises(NoConnectionError):
        insist(answers(NoConnectionError("gone")), stop)


def test_what_does_not_pass_by_itself_is_not_repeated() -> None:
    with pytest.raises(ResponseError):
        insist(answers(ResponseError("WRONGTYPE"), "done"), Stop())


def test_a_client_bears_with_a_silence_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    patience = Patience("job x")
    ask = answers("there", NoConnectionError("gone"), JobNotFoundError("no record"), "there again")
    assert [patience.ask(ask) for _ in range(4)] == ["there", None, None, "there again"]
    assert caplog.text.count("job x: waiting") == 1


def test_a_client_bears_with_it_for_so_long_only() -> None:
    patience = Patience("job x", seconds=-1)
    ask = answers("there", NoConnectionError("gone"))
    patience.ask(ask)
    with pytest.raises(NoConnectionError):
        patience.ask(ask)


@pytest.mark.parametrize("trouble", [NoConnectionError("gone"), JobNotFoundError("no record")])
def test_what_never_answered_is_not_waited_for(trouble: Exception) -> None:
    with pytest.raises(type(trouble)):
        Patience("job x").ask(answers(trouble))


SCRIPT_OF_6_2 = "ERR Error running script (call to f_50142d15): @user_script:1: @user_script: 1: -"
REFUSED = [
    "NOREPLICAS Not enough good replicas to write.",
    "MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "LOADING Redis is loading the dataset in memory",
]


@pytest.mark.parametrize("script", ["", SCRIPT_OF_6_2], ids=["command", "script of Redis 6.2"])
@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text.split()[0])
def test_a_refusal_that_passes_is_known_as_one(text: str, script: str) -> None:
    recognise_refusals()
    assert isinstance(BaseParser.parse_error(script + text), PASSING)


OTHERS = ["WRONGTYPE Operation against a key", "ERR unknown command 'OOM'", "NOSCRIPT No", "BUSYGROUP Consumer Group"]


@pytest.mark.parametrize("text", OTHERS)
def test_any_other_answer_is_none(text: str) -> None:
    recognise_refusals()
    assert not isinstance(BaseParser.parse_error(text), PASSING)
