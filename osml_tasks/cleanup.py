"""What this program has made and when it is deleted: policies, statistics, manual and forced cleanup.

Only what this program created is deleted, and only under the configured buckets and prefixes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from osml_tasks.config import AsyncEndpointConfig, CleanupPolicy
from osml_tasks.errors import NotAllowedError
from osml_tasks.jobs import is_made_here
from osml_tasks.ledger import LEDGER_SECONDS, CleanupFailure, Ledger, MemoryLedger, Outcome, ResourceType
from osml_tasks.logs import about
from osml_tasks.s3 import S3Manager, S3Uri, Undeleted
from osml_tasks.s3_settings import S3Settings
from osml_tasks.s3_uri import is_uri

__all__ = ["Cleanup", "CleanupPolicy", "ResourceManager", "ResourceType"]

SWEEP_SECONDS = 30
"""How often beat looks for what is due, s; also how soon a refused deletion is tried again."""
_LONGEST_RETRY_SECONDS = 3600
_SWEEP_BUDGET_SECONDS = 20
_PAGE = 1000
_MOST_ATTEMPTS_ELSEWHERE = 7 * 24  # about a week of them
_HERE = (ResourceType.TEMPORARY_FILE, ResourceType.INVOCATION, ResourceType.WORKER)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What a cleanup has done: how many resources are gone, and how many are left although they should be."""

    cleaned: int = 0
    failed: int = 0

    def __add__(self, other: Cleanup) -> Cleanup:
        return Cleanup(self.cleaned + other.cleaned, self.failed + other.failed)


class ResourceManager:
    """Knows S3 objects, temporary files, invocations and workers, and deletes them as the policy says.

    A resource is registered while it is in use and released afterwards: ``immediate`` deletes it then,
    ``delayed`` after ``cleanup_delay_seconds``, ``disabled`` leaves it to a forced cleanup. An S3 object
    that is never released, because its process died, is due after ``cleanup_leftover_seconds``.
    Thread-safe; a context manager that cleans up at its end.

    :param s3: default: with boto3's own credentials.
    :param ledger: where S3 objects are entered; default: in memory. With a fleet's
        :class:`~osml_tasks.ledger.RedisLedger` its beat deletes what is due.
    """

    def __init__(self, config: AsyncEndpointConfig, s3: S3Manager | None = None, ledger: Ledger | None = None) -> None:
        self._config = config
        self._s3 = s3 or S3Manager(settings=S3Settings.of(config))
        self._ledger: Ledger = ledger or MemoryLedger()
        # Files and workers are this host's: no other process could clean them up.
        self._here: Ledger = MemoryLedger(clock=self._ledger.now) if self._ledger.lasting else self._ledger
        self._cleaners: dict[tuple[ResourceType, str], Callable[[], None]] = {}

    @property
    def policy(self) -> CleanupPolicy:
        """When released resources are deleted."""
        return self._config.policy_in_force

    @property
    def ledger(self) -> Ledger:
        """What is due and when."""
        return self._ledger

    def may_delete(self, uri: S3Uri) -> bool:
        """Whether an object lies where the configuration lets this program delete, and may be one of its own.

        Where no prefix tells, payloads and results are known by the directory of their job, and outputs by that
        or by the ending that every endpoint gives them.
        """
        if uri.has_odd_parts:
            return False
        if self._is_input(uri):
            return True
        config = self._config
        has_prefix = uri.bucket == config.output_bucket and config.output_prefix != ""
        return self.may_be_answer(uri) and (has_prefix or uri.key.endswith(".out") or _is_of_a_job(uri))

    def _is_input(self, uri: S3Uri) -> bool:
        config = self._config
        if uri.bucket != config.input_bucket or not uri.key.startswith(config.input_prefix):
            return False
        return config.input_prefix != "" or is_made_here(uri.key.partition("/")[0])

    def may_be_answer(self, uri: S3Uri) -> bool:
        """Whether an object lies where the configuration has outputs and failure objects."""
        config = self._config
        if uri.bucket not in config.readable_output_buckets or uri.has_odd_parts:
            return False
        # An endpoint's failure objects may lie beside its outputs: there ours are known by their directory.
        elsewhere = uri.bucket == config.output_bucket and not uri.key.startswith(config.output_prefix)
        return not elsewhere or _is_of_a_job(uri)

    def register_s3_object(self, uri: S3Uri | str) -> None:
        """Know of an object that this program made, or was answered for its own invocation.

        :raises NotAllowedError: it lies outside of the configured buckets and prefixes.
        """
        found = S3Uri.parse(uri) if isinstance(uri, str) else uri
        if not self.may_delete(found):
            raise NotAllowedError(
                f"{found} is under none of the configured buckets and prefixes: it would never be deleted"
            )
        if self.policy is CleanupPolicy.DISABLED:
            self._ledger.hold(ResourceType.S3_OBJECT, [str(found)])
        else:
            due = self._ledger.now() + (self._config.cleanup_leftover_seconds or LEDGER_SECONDS)
            self._ledger.schedule(ResourceType.S3_OBJECT, {str(found): due})
        self.count(ResourceType.S3_OBJECT, Outcome.REGISTERED)

    def register_temporary_file(self, path: Path) -> None:
        """Know of a file to be removed."""
        self._register(ResourceType.TEMPORARY_FILE, str(path), lambda: path.unlink(missing_ok=True))

    def register_invocation(self, inference_id: str) -> None:
        """Know of an invocation that is in flight; cleaning it up forgets it."""
        self._register(ResourceType.INVOCATION, inference_id, lambda: None)

    def register_worker(self, name: str, stop: Callable[[], None]) -> None:
        """Know of a worker, and how to stop it."""
        self._register(ResourceType.WORKER, name, stop)

    def _register(self, kind: ResourceType, name: str, clean: Callable[[], None]) -> None:
        self._cleaners[kind, name] = clean
        self._here.hold(kind, [name])
        self.count(kind, Outcome.REGISTERED)

    def count(self, kind: ResourceType, outcome: Outcome, number: int = 1) -> None:
        """Add to the statistics what is known in bulk only."""
        self._ledger.count(kind, outcome, number)

    def release_s3_objects(self, uris: Iterable[S3Uri], *, after: float = 0.0) -> Cleanup:
        """Say that objects are not needed any more: what happens now is the policy's.

        :param after: seconds that ``immediate`` is to wait, for an object that may yet appear.
        """
        names = [str(uri) for uri in uris]
        due = self._due(after)
        if due is None:
            self._ledger.hold(ResourceType.S3_OBJECT, names)
            return Cleanup()
        self._ledger.schedule(ResourceType.S3_OBJECT, dict.fromkeys(names, due))
        return self._delete_entered(names) if due <= self._ledger.now() else Cleanup()

    def forget_s3_objects(self, uris: Iterable[S3Uri]) -> None:
        """Say that registered objects have never come to be."""
        self._ledger.strike(ResourceType.S3_OBJECT, map(str, uris))

    def release(self, kind: ResourceType, name: str) -> Cleanup:
        """The same for a temporary file, an invocation or a worker."""
        due = self._due() if kind is ResourceType.TEMPORARY_FILE else self._here.now()
        if due is None:
            return Cleanup()
        self._here.schedule(kind, {name: due})
        return self._clean(kind, [name]) if due <= self._here.now() else Cleanup()

    def _due(self, after: float = 0.0) -> float | None:
        """When what is released now is to be deleted, s since the epoch; None for never."""
        if self.policy is CleanupPolicy.DISABLED:
            return None
        delay = self._config.cleanup_delay_seconds if self.policy is CleanupPolicy.DELAYED else 0.0
        return self._ledger.now() + max(delay, after)

    def cleanup(self, *, force: bool = False, retry: bool = True) -> Cleanup:
        """Clean up what is due or, by force, everything that is registered.

        :param retry: also what was tried in vain before, whenever it is to be tried again.
        """
        done = Cleanup()
        for kind in _HERE:
            done += self._clean(kind, self._chosen(self._here, kind, force, retry))
        done += self._delete_entered(self._chosen(self._ledger, ResourceType.S3_OBJECT, force, retry))
        until = time.monotonic() + _SWEEP_BUDGET_SECONDS
        while time.monotonic() < until and (due := self._ledger.due(ResourceType.S3_OBJECT, self._ledger.now(), _PAGE)):
            done += self._delete_entered(due)
        return done

    def _chosen(self, ledger: Ledger, kind: ResourceType, force: bool, retry: bool) -> list[str]:
        if force:
            return list(ledger.entries(kind))
        tried = ledger.failures(kind) if retry else ()
        return list(dict.fromkeys([*ledger.due(kind, ledger.now(), _PAGE), *tried]))

    def _clean(self, kind: ResourceType, names: Sequence[str]) -> Cleanup:
        return sum((self._clean_one(kind, name) for name in names), Cleanup())

    def _clean_one(self, kind: ResourceType, name: str) -> Cleanup:
        # Taken out first: of two threads at one resource only one has it.
        clean = self._cleaners.pop((kind, name), None)
        if clean is None:
            return Cleanup()
        try:
            clean()
        except Exception as error:
            self._cleaners[kind, name] = clean
            self._note(self._here, kind, name, 1, f"{name}: {error}")
            return Cleanup(failed=1)
        self._here.strike(kind, [name])
        self.count(kind, Outcome.CLEANED)
        return Cleanup(1)

    def _delete_entered(self, names: Sequence[str]) -> Cleanup:
        if not names:
            return Cleanup()
        names = self._without_rubbish(names)
        allowed = {name: uri for name in names if self.may_delete(uri := S3Uri.parse(name))}
        # Entered with another configuration: for a process that has it.
        elsewhere = "it is under none of the configured buckets and prefixes"
        left = {name: elsewhere for name in names if name not in allowed}
        left |= {str(one.uri): one.error for one in self._s3.delete(allowed.values())}
        self._ledger.strike(ResourceType.S3_OBJECT, (name for name in names if name not in left))
        self.count(ResourceType.S3_OBJECT, Outcome.CLEANED, len(names) - len(left))
        for name, error in left.items():
            failure = self._note(self._ledger, ResourceType.S3_OBJECT, name, 1, f"{name}: {error}")
            if name not in allowed and failure.attempts > _MOST_ATTEMPTS_ELSEWHERE:
                logger.warning("%s is given up: no configuration has allowed to delete it", name)
                self._ledger.strike(ResourceType.S3_OBJECT, [name])
        return Cleanup(len(names) - len(left), len(left))

    def _without_rubbish(self, names: Iterable[str]) -> list[str]:
        """Entries that name an object; any other is taken off, for it would stand in the way of all others."""
        rubbish = [name for name in names if not is_uri(name)]
        for name in rubbish:
            logger.warning("an entry of the cleanup ledger is dropped: %r is not an S3 URI", name[:200])
        self._ledger.strike(ResourceType.S3_OBJECT, rubbish)
        return [name for name in names if is_uri(name)]

    def delete(self, uris: Iterable[S3Uri], *, job_id: str) -> Cleanup:
        """Delete objects of a job now, whatever the policy; those that stay are tried again with the whole job."""
        doomed = [uri for uri in uris if self.may_delete(uri)]
        undeleted = self._s3.delete(doomed)
        self.count(ResourceType.S3_OBJECT, Outcome.CLEANED, len(doomed) - len(undeleted))
        if undeleted:
            self._note_undeleted(job_id, undeleted)
        return Cleanup(len(doomed) - len(undeleted), len(undeleted))

    def _note_undeleted(self, job_id: str, undeleted: Sequence[Undeleted]) -> None:
        first = undeleted[0]
        self._note(self._ledger, ResourceType.JOB, job_id, len(undeleted), f"{first.uri}: {first.error}")
        for one in undeleted:
            if f"/{job_id}/" not in f"/{one.uri.key}":
                # Not in a directory of the job's, so nobody would find it there again.
                self._note(self._ledger, ResourceType.S3_OBJECT, str(one.uri), 1, f"{one.uri}: {one.error}")

    def _note(self, ledger: Ledger, kind: ResourceType, name: str, objects: int, error: str) -> CleanupFailure:
        failure = ledger.note_failure(kind, name, objects, error)
        wait = min(SWEEP_SECONDS * 2 ** (failure.attempts - 1), _LONGEST_RETRY_SECONDS)
        ledger.schedule(kind, {name: ledger.now() + wait})
        self.count(kind, Outcome.FAILED, objects)
        fields = about(job=name if kind is ResourceType.JOB else None, objects=objects)
        logger.warning(
            "%d of %s cannot be cleaned up, trying again in %d s: %s", objects, kind, wait, error, extra=fields
        )
        return failure

    def note_job(self, job_id: str, error: str) -> Cleanup:
        """Write down that a job's objects could not even be looked for; it is tried again."""
        self._note(self._ledger, ResourceType.JOB, job_id, 1, error)
        return Cleanup(failed=1)

    def get_stats(self) -> dict[str, Any]:
        """What there is to clean up now, and what has been cleaned up so far; over the fleet with its ledger.

        ``total_resources`` and ``by_type`` count what is entered now; ``by_outcome`` and ``outcomes``
        what has happened so far (a step done twice may count twice); ``failures`` names what could not
        be cleaned up and is tried again.
        """
        ledgers = [self._here, self._ledger] if self._ledger.lasting else [self._ledger]
        waiting = {kind: sum(len(ledger.entries(kind)) for ledger in ledgers) for kind in ResourceType}
        counts = self._ledger.counts()
        failures = [
            {"type": kind.value, "resource": name} | asdict(failure)
            for kind in ResourceType
            for ledger in ledgers
            for name, failure in ledger.failures(kind).items()
        ]
        return {
            "policy": self.policy.value,
            "total_resources": sum(waiting.values()),
            "by_type": {kind.value: number for kind, number in waiting.items()},
            "by_outcome": {outcome.value: sum(counts[kind][outcome] for kind in ResourceType) for outcome in Outcome},
            "outcomes": {
                kind.value: {outcome.value: counts[kind][outcome] for outcome in Outcome} for kind in ResourceType
            },
            "failures": failures,
        }

    def close(self) -> None:
        """Clean up what nobody else would: all of it but what a policy keeps, or a lasting ledger looks after."""
        if self.policy is CleanupPolicy.DISABLED:
            return
        if self._ledger.lasting:
            for kind in _HERE:
                self._clean(kind, list(self._here.entries(kind)))
        else:
            self.cleanup(force=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_of_a_job(uri: S3Uri) -> bool:
    """Whether an object, or a directory, is in one that is called like a job, or is that."""
    return any(map(is_made_here, uri.key.split("/")))
