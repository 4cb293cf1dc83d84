"""S3: one seam for every object that is read, written, listed or deleted.

Bulk work goes through obstore, which takes a quarter of boto3's CPU a request; host, credentials, certificates and
proxy are boto3's, so that both always agree. Deleting is boto3's, which says of each object whether it is gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import boto3
import obstore
from botocore.exceptions import BotoCoreError, ClientError

from osml_tasks.aws.s3_access import S3Access
from osml_tasks.errors import (
    BucketRegionError,
    CredentialsExpiredError,
    ObjectNotFoundError,
    RoleRefusedError,
    S3OperationError,
)
from osml_tasks.s3_bucket import check_bucket
from osml_tasks.s3_errors import again, errors
from osml_tasks.s3_listing import pages
from osml_tasks.s3_settings import S3Settings
from osml_tasks.s3_uri import S3Uri
from osml_tasks.s3_writer import MULTIPART_BYTES, ObjectWriter
from osml_tasks.whole_file import written_whole

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, WritableFile
    from obstore.store import S3Store

__all__ = ["S3Manager", "S3Object", "S3OperationError", "S3Uri", "Undeleted"]

logger = logging.getLogger(__name__)

CHUNK_BYTES = 4 * 1024 * 1024
"""How much of a large object is read at a time."""
_LIST_KEYS = 1000
_BAD_REQUEST = "400 Bad Request"
_DELETE_KEYS = 1000
# Of calls that boto3 makes.
_REFUSALS = (ClientError, BotoCoreError, BucketRegionError, CredentialsExpiredError, RoleRefusedError)


@dataclass(frozen=True, slots=True)
class S3Object:
    """What a listing says of an object; ``size`` in bytes, ``etag`` unlike that of any other content."""

    uri: S3Uri
    size: int
    last_modified: datetime
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Undeleted:
    """An object that could not be deleted, and why, in one line."""

    uri: S3Uri
    error: str


class Readable(Protocol):
    """A binary stream, as far as it is read from."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


class S3Manager:
    """Reads, writes, lists and deletes objects. Thread-safe; make it after a fork, not before.

    Whatever fails raises an :class:`S3OperationError` that names request and object;
    :class:`ObjectNotFoundError` and :class:`S3AccessError` are kinds of it. What is read is whole: its length
    is that of the object, or of the range that was asked for.

    :param session: where credentials and region come from; default: as boto3 finds them.
    :param settings: what goes with each request; default: nothing.
    :param sleep: waits so many seconds before what has failed is tried again.
    :raises ExtensionConfigurationError: if the session has no credentials, or its certificates cannot be read.
    """

    def __init__(
        self,
        session: boto3.Session | None = None,
        settings: S3Settings | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sleep = sleep
        self.access = S3Access(session or boto3.Session(), settings)
        self._settings = self.access.settings
        self._client = self.access.client
        self._stores: dict[str, S3Store] = {}
        self._lock = Lock()

    def validate_bucket(self, bucket: str) -> None:
        """Find out whether a bucket is there and lets us in.

        :raises S3OperationError: as :func:`~osml_tasks.s3_bucket.check_bucket`.
        """
        again(lambda: check_bucket(self.access, bucket), self._sleep)

    def put(self, uri: S3Uri, body: bytes | Path) -> None:
        """Write an object from bytes or from a file, in parts where it is large."""
        again(lambda: self._put(uri, body), self._sleep)

    def _put(self, uri: S3Uri, body: bytes | Path) -> None:
        with errors("PUT", uri):
            obstore.put(self._store(uri.bucket), uri.key, body)

    def upload(self, uri: S3Uri, source: Readable) -> int:
        """Write an object from a stream, in bounded memory; says how many bytes that were."""
        size = 0
        with self.writer(uri) as file:
            while chunk := source.read(CHUNK_BYTES):
                file.write(chunk)
                size += len(chunk)
        return size

    def get(self, what: S3Uri | S3Object) -> bytes:
        """Read a whole object into memory; S3 is asked for its size, unless a listing has shown it."""
        return again(lambda: self._get(what), self._sleep)

    def _get(self, what: S3Uri | S3Object) -> bytes:
        uri = what if isinstance(what, S3Uri) else what.uri
        with errors("GET", uri):
            body = bytes(obstore.get(self._store(uri.bucket), uri.key).bytes())
        return _whole(body, uri, self._found(what).size)

    def get_range(
        self, uri: S3Uri, start: int, end: int, etag: str | None = None, *, least: int | None = None
    ) -> bytes:
        """Read the bytes from ``start`` up to, not including, ``end``.

        :param etag: fail if the content is another by now; None: any will do.
        :param least: how many bytes do, where the object may end before; None: all of them.
        """
        if start == end:
            return b""
        return again(lambda: self._get_range(uri, start, end, etag, least), self._sleep)

    def _get_range(self, uri: S3Uri, start: int, end: int, etag: str | None, least: int | None) -> bytes:
        options: GetOptions = {"range": (start, end)}
        if etag:
            options["if_match"] = etag
        with errors("GET", uri):
            body = bytes(obstore.get(self._store(uri.bucket), uri.key, options=options).bytes())
        return _whole(body, uri, end - start, least)

    def stream(self, what: S3Uri | S3Object) -> Iterator[bytes]:
        """Read an object in chunks of a few megabytes."""
        found = again(lambda: self._found(what), self._sleep)
        for start in range(0, found.size, CHUNK_BYTES):
            yield self.get_range(found.uri, start, min(start + CHUNK_BYTES, found.size), found.etag)

    def _found(self, what: S3Uri | S3Object) -> S3Object:
        return what if isinstance(what, S3Object) else self._head(what)

    def download(self, uri: S3Uri, path: Path) -> None:
        """Write an object to a file, which appears whole or not at all; a pipe or device is written as it comes.

        :raises OSError: if the file cannot be written.
        """
        with written_whole(path) as file:
            for chunk in self.stream(uri):
                file.write(chunk)

    @contextmanager
    def writer(self, uri: S3Uri) -> Iterator[ObjectWriter]:
        """Write an object piece by piece in bounded memory; nothing appears if the block raises."""
        writer = ObjectWriter(uri, lambda: self._open_file(uri))
        try:
            yield writer
            writer.finish(lambda body: self.put(uri, body))
        except BaseException:
            if writer.is_in_parts:
                self.abort_uploads(uri)
            raise

    def _open_file(self, uri: S3Uri) -> WritableFile:
        with errors("PUT", uri):
            store = self._store(uri.bucket)
            return obstore.open_writer(store, uri.key, buffer_size=MULTIPART_BYTES, max_concurrency=2)

    def list(self, prefix: S3Uri) -> Iterator[S3Object]:
        """All objects under a prefix that ends at a slash, whether or not that is written; in order."""
        if prefix.bucket in self._settings.owners:
            yield from self._list_by_boto3(prefix)
            return
        page = self._page(prefix, None)
        yield from page
        while len(page) == _LIST_KEYS:
            page = self._page(prefix, page[-1].uri.key)
            yield from page

    def _list_by_boto3(self, prefix: S3Uri) -> Iterator[S3Object]:
        def ask() -> dict[str, Any]:
            return next(pages(self._client, prefix, **start))

        start: dict[str, str] = {}
        more = True
        while more:
            answer = again(ask, self._sleep)
            for one in answer.get("Contents", ()):
                uri = S3Uri(prefix.bucket, one["Key"])
                start = {"StartAfter": one["Key"]}
                yield S3Object(uri, one["Size"], one["LastModified"], one.get("ETag"))
            more = bool(answer.get("IsTruncated"))

    def _page(self, prefix: S3Uri, after: str | None) -> Sequence[S3Object]:
        """Up to a thousand objects, those whose keys come after a key."""

        def ask() -> Sequence[ObjectMeta]:
            with errors("LIST", prefix):
                store = self._store(prefix.bucket)
                pages = obstore.list(store, prefix.key.rstrip("/"), offset=after, chunk_size=_LIST_KEYS)
                return next(iter(pages), ())

        found = again(ask, self._sleep)
        return [
            S3Object(S3Uri(prefix.bucket, one["path"]), one["size"], one["last_modified"], one["e_tag"])
            for one in found
        ]

    def head(self, uri: S3Uri) -> S3Object | None:
        """What is known of one object, or None if it does not exist."""
        try:
            return again(lambda: self._head(uri), self._sleep)
        except ObjectNotFoundError:
            return None

    def _head(self, uri: S3Uri) -> S3Object:
        try:
            with errors("HEAD", uri):
                found = obstore.head(self._store(uri.bucket), uri.key)
        except S3OperationError as error:
            if _BAD_REQUEST in str(error):
                # What is wrong stands in a body, and an answer to HEAD has none.
                self._get_range(uri, 0, 1, None, None)
            raise
        return S3Object(uri, found["size"], found["last_modified"], found["e_tag"])

    def delete(self, uris: Iterable[S3Uri]) -> Sequence[Undeleted]:
        """Delete objects, a thousand a request; one that is not there counts as deleted.

        :return: those that could not be deleted. Nothing is raised, for what is left can be tried again.
        """
        keys: dict[str, dict[str, None]] = {}
        for uri in uris:
            keys.setdefault(uri.bucket, {})[uri.key] = None
        requests = ((bucket, batch) for bucket, all_keys in keys.items() for batch in _batches([*all_keys]))
        return [undeleted for bucket, batch in requests for undeleted in self._delete(bucket, batch)]

    def _delete(self, bucket: str, keys: Sequence[str]) -> Sequence[Undeleted]:
        try:
            self.access.credentials.frozen()
            answer = self._client.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        except _REFUSALS as error:
            return [Undeleted(S3Uri(bucket, key), " ".join(str(error).split())) for key in keys]
        errors = answer.get("Errors", ())
        return [Undeleted(S3Uri(bucket, error["Key"]), f"{error['Code']}: {error['Message']}") for error in errors]

    def folders(self, prefix: S3Uri) -> Sequence[str]:
        """The names of what looks like directories right under a prefix."""
        return again(lambda: self._folders(prefix), self._sleep)

    def _folders(self, prefix: S3Uri) -> Sequence[str]:
        if prefix.bucket in self._settings.owners:
            answers = pages(self._client, prefix, Delimiter="/")
            paths = [one["Prefix"] for page in answers for one in page.get("CommonPrefixes", ())]
            return [path.rstrip("/").rpartition("/")[2] for path in paths]
        with errors("LIST", prefix):
            found = obstore.list_with_delimiter(self._store(prefix.bucket), prefix.key.rstrip("/"))
        return [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]

    def abort_uploads(self, prefix: S3Uri) -> None:
        """Delete what interrupted uploads under a prefix that ends at a slash, or of that key, have left.

        These are parts that no listing shows.

        Without the permission to do so they stay until the bucket's lifecycle rule removes them.
        """
        try:
            self.access.credentials.frozen()
            answer = self._client.list_multipart_uploads(Bucket=prefix.bucket, Prefix=prefix.key)
            for upload in answer.get("Uploads", ()):
                if f"{upload['Key']}/".startswith(f"{prefix.key.rstrip('/')}/"):
                    self._client.abort_multipart_upload(
                        Bucket=prefix.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
        except _REFUSALS as error:
            logger.warning("interrupted uploads under %s are left: %s", prefix, error)

    def _store(self, bucket: str) -> S3Store:
        # Renewed here if need be: an error inside obstore's callback would come back as text.
        self.access.credentials.frozen()
        with self._lock:
            if bucket not in self._stores:
                self._stores[bucket] = self.access.open_store(bucket)
            return self._stores[bucket]


def _whole(body: bytes, uri: S3Uri, size: int, least: int | None = None) -> bytes:
    """A body, if it is as long as it should be; or, with ``least``, as long as it has to be."""
    if not (size if least is None else least) <= len(body) <= size:
        raise S3OperationError(f"GET {uri} gave {len(body):,} of {size:,} bytes", uri=str(uri))
    return body


def _batches(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _DELETE_KEYS):
        yield keys[start : start + _DELETE_KEYS]
