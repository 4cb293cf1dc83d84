"""One job on a rig: its client, how it moves, and what has become of its features in the end."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import TYPE_CHECKING, Any

from osml_tasks.celery import new_app
from osml_tasks.child_process import ChildProcess
from tests.chaos.row import Row
from tests.integration.fleet import INPUTS, wait_until, write_tiles

if TYPE_CHECKING:
    from tests.chaos.rig import Rig

PATIENCE = 300.0
"""How long anything may take, s."""
_LOOK_EVERY = 0.4
_SOME_FAILED = 3  # exit status of a client whose report has failed tiles


class TrialOverError(Exception):
    """A client that waits for its job has ended before the fault was complete."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(f"the client has ended too early: {trial.client.log_text()[-500:]}")
        self.trial = trial


class Trial:
    """A job of numbered tiles, one to three features each, that a client waits for.

    :ivar folder: where its tiles are; workers may read them.
    :ivar output: the file that the result goes to.
    :ivar client: who waits for it now.
    :ivar struck_at: when the fault came, and came again, or was over.
    """

    client: ChildProcess

    def __init__(
        self, rig: Rig, directory: Path, tiles: int, endpoint: str, scripts: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.rig = rig
        self.endpoint = endpoint
        self.tiles = tiles
        self.output = directory / "out.geojson"
        self.report_file = directory / "report.json"
        self.struck_at: list[float] = []
        self._name = directory.name
        self.folder = rig.fleet.tiles / directory.name
        names = [f"t{number:04d}" for number in range(tiles)]
        # The model remembers what it was called with, so names are this trial's own.
        own = [{"name": f"{directory.name}-{name}", "features": 1 + place % 3} for place, name in enumerate(names)]
        self._scripts = {name: script | dict(scripts.get(name, {})) for name, script in zip(names, own, strict=True)}
        self._jobs_before = rig.job_ids()
        self._job_id = ""
        self._moved: list[float] = []
        self._over = Event()
        self._watching: Thread | None = None
        directory.mkdir()

    def start(self, *options: str, command: tuple[str, ...] = (), **variables: str) -> None:
        """Have a client start the job."""
        write_tiles(self.folder, self._scripts)
        arguments = ("detect", self.folder, "--endpoint", self.endpoint, *self._outcome, *options)
        self.client = self.rig.client("detect", *arguments, command=command, **variables)
        self._begin()

    def start_again(self, *options: str, **variables: str) -> None:
        """Have another client start it as a new job, where nothing came of the first."""
        self._jobs_before, self._job_id = self.rig.job_ids(), ""
        self.start(*options, **variables)

    def start_by_name(self, task_id: str, clients: int) -> None:
        """Have clients start it by a message alone, all with the same task id and at the same time."""
        write_tiles(self.folder, self._scripts)
        together = Barrier(clients)

        def send() -> None:
            app = new_app(self.rig.broker.url, self.rig.broker.url)
            together.wait()
            app.send_task("osml_tasks.detect", [str(self.folder)], {"endpoint": self.endpoint}, task_id=task_id)

        senders = [Thread(target=send) for _ in range(clients)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        self._begin()

    def fetch(self) -> None:
        """Have another client fetch the result, which :meth:`wait` is then about."""
        self.client = self.rig.client("result", "result", self.job_id, *self._outcome)

    @property
    def _outcome(self) -> tuple[str | Path, ...]:
        return ("-o", self.output, "--report", self.report_file)

    def _begin(self) -> None:
        if self._watching is None:
            self._watching = Thread(target=self._watch, daemon=True)
            self._watching.start()

    @property
    def job_id(self) -> str:
        """The job's id, as soon as something of it is in S3."""

        def appeared() -> bool:
            self._job_id = self._job_id or next(iter(self.rig.job_ids() - self._jobs_before), "")
            return bool(self._job_id)

        wait_until(appeared)
        return self._job_id

    def invocations(self) -> list[str]:
        """The inference ids of this job that the endpoint has accepted."""
        return [name for name in self.rig.fleet.invocations(self.endpoint) if name.startswith(f"{self.job_id}.")]

    def parts(self) -> int:
        """How many shards are finished."""
        prefix = f"async-inference/input/{self.job_id}/parts/"
        return int(self.rig.fleet.s3.list_objects_v2(Bucket=INPUTS, Prefix=prefix)["KeyCount"])

    def reach(self, share: float) -> None:
        """Wait until so much of the job is invoked, 0 to 1."""
        self.until(lambda: len(self.invocations()) >= share * self.tiles)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something.

        :raises TrialOverError: the client has ended meanwhile.
        """

        def now_or_never() -> bool:
            if condition():
                return True
            if not self.client.is_alive():
                raise TrialOverError(self)
            return False

        wait_until(now_or_never, PATIENCE)

    def struck(self) -> None:
        """Say that the fault has come, or is over: from now on it counts until work goes on."""
        self.struck_at.append(time.monotonic())

    def wait(self) -> int | None:
        """Wait for the client's end; says its exit status, None if it does not end."""
        return exit_status(self.client)

    def row(self, times: int, note: str = "", *, reason: str = "") -> Row:
        """Wait for the end, sweep, and count.

        :param reason: tiles that the report has with it are not lost.
        """
        status = self.wait()
        self.end()
        self._moved.append(time.monotonic())
        reported = self.reported(reason)
        if reported and status == _SOME_FAILED:
            note, status = f"{note} {len(reported)} tiles reported: {reason}".strip(), 0
        note = note if status == 0 else f"{note} exit {status}: {self._last_words()}".strip()
        return self.count(times, note, reported=reported)

    def reported(self, reason: str) -> frozenset[str]:
        """The tiles that the report says failed for a reason."""
        if not (reason and self.report_file.exists()):
            return frozenset()
        failures = json.loads(self.report_file.read_text())["failures"]
        return frozenset(Path(one["tile"]).name for one in failures if one["reason"] == reason)

    def count(self, times: int, note: str = "", *, reported: frozenset[str] = frozenset()) -> Row:
        """Sweep, and count what is in the result.

        :param reported: tiles of which no feature is expected.
        """
        self.end()
        found = Counter(self._found())
        invoked = self.invocations()
        left = self.rig.sweep()
        return Row(
            fault="",
            times=times,
            tiles=self.tiles,
            lost=len(set(self._expected(reported)) - set(found)),
            doubled=sum(found.values()) - len(found),
            wasted=len(invoked) - len({name.split(".")[1] for name in invoked}),
            left=len(left),
            seconds_until_work=self.stillness(),
            note=note,
        )

    def end(self) -> None:
        """Look no more how it moves."""
        self._over.set()
        if self._watching is not None:
            self._watching.join()
            self._watching = None

    def stillness(self) -> float | None:
        """The longest time in which nothing moved once the fault had come, s; None if it never came."""
        if not self.struck_at:
            return None
        first = self.struck_at[0]
        marks = sorted([*self.struck_at, *(moment for moment in self._moved if moment > first)])
        return round(max((after - before for before, after in pairwise(marks)), default=0.0), 1)

    def _expected(self, reported: frozenset[str]) -> Iterator[str]:
        for tile, script in self._scripts.items():
            if tile not in reported:
                yield from (f"{script['name']}-{place}" for place in range(script["features"]))

    def _found(self) -> Iterator[str]:
        if self.output.exists():
            yield from (feature["id"] for feature in json.loads(self.output.read_text())["features"])

    def _last_words(self) -> str:
        return " ".join(self.client.log_text().split())[-200:]

    def _watch(self) -> None:
        """Note when the endpoint accepts or answers something of the job, and when a part appears."""
        seen: object = None
        while not self._over.wait(_LOOK_EVERY):
            now = self._state()
            if now != seen:
                seen = now
                self._moved.append(time.monotonic())

    def _state(self) -> object:
        stats = self.rig.fleet.stats(self.endpoint)
        parts = self.parts() if self._job_id else 0
        return [stats[name] for name in ("invocations", "succeeded", "failed", "dropped")], parts


def exit_status(client: ChildProcess) -> int | None:
    """Wait for a client's end; says its exit status, None if it does not end."""
    try:
        wait_until(lambda: not client.is_alive(), PATIENCE)
    except AssertionError:
        return None
    assert client._process is not None
    return client._process.poll()
