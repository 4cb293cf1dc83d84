"""The objects that an endpoint reads and writes, in S3 through obstore."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import unquote, urlsplit

import boto3
import obstore
from obstore.store import S3Store

from osml_tasks.aws.s3_access import S3Access

MAX_INPUT_BYTES = 1024**3


class InputError(Exception):
    """An invocation's input cannot be read."""


class Objects(Protocol):
    """Where inputs come from and outputs go to."""

    async def get(self, location: str) -> bytes:
        """Return the object at ``location``.

        :raises InputError: there is none, or it cannot be read.
        """

    async def put(self, location: str, body: bytes, content_type: str) -> None:
        """Write an object.

        :param location: ``s3://bucket/key``.
        """


class S3Objects:
    """Objects in S3; one store a bucket, made at its first use.

    :param access: the way to S3.
    """

    def __init__(self, access: S3Access) -> None:
        self._access = access
        self._stores: dict[str, S3Store] = {}

    @classmethod
    def from_environment(cls) -> S3Objects:
        """Return the S3 that boto3 finds, with boto3's own credentials.

        :raises ExtensionConfigurationError: boto3 finds no credentials.
        """
        return cls(S3Access(boto3.Session()))

    async def get(self, location: str) -> bytes:
        """Return the object at ``location``, at most :data:`MAX_INPUT_BYTES` of it.

        :raises InputError: there is none, it is too large, or S3 does not answer.
        """
        try:
            bucket, key = bucket_and_key(location)
            result = await obstore.get_async(self._store(bucket), key)
            if result.meta["size"] > MAX_INPUT_BYTES:
                raise InputError(f"it has more than {MAX_INPUT_BYTES} bytes")
            return bytes(await result.bytes_async())
        except FileNotFoundError:
            raise InputError("there is no such object") from None
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise InputError(first_line(error)) from error

    async def put(self, location: str, body: bytes, content_type: str) -> None:
        """Write an object of any size at ``location``, which is ``s3://bucket/key``."""
        bucket, key = bucket_and_key(location)
        # One request, whatever the size: an output is in memory already.
        await obstore.put_async(
            self._store(bucket), key, body, attributes={"Content-Type": content_type}, use_multipart=False
        )

    def _store(self, bucket: str) -> S3Store:
        if bucket not in self._stores:
            self._stores[bucket] = self._access.open_store(bucket)
        return self._stores[bucket]


def bucket_and_key(location: str) -> tuple[str, str]:
    """Split the address of an S3 object, ``s3://`` or ``https://``, into bucket and key.

    :raises ValueError: it is not the address of an S3 object.
    """
    scheme, _, rest = location.partition("://")
    if scheme == "https":
        return _split_https(location)
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise ValueError(f"{location} is not of the form s3://bucket/key")
    return bucket, key


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text; obstore's goes on with its own internals."""
    return str(error).partition("\n")[0] or type(error).__name__


def _split_https(location: str) -> tuple[str, str]:
    parts = urlsplit(location)
    host, path = parts.netloc, unquote(parts.path).lstrip("/")
    if not host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        raise ValueError(f"{location} is not the address of an S3 object")
    if host.startswith(("s3.", "s3-")):
        bucket, _, key = path.partition("/")
    else:
        bucket, key = host.rpartition(".s3")[0], path
    if not bucket or not key:
        raise ValueError(f"{location} is not the address of an S3 object")
    return bucket, key
