"""What obstore's errors mean, in one line each that names the request and the object; and a second go at what fails."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError

from osml_tasks.aws.credentials import complaint, is_expiry
from osml_tasks.errors import (
    BucketRegionError,
    CredentialsExpiredError,
    ObjectNotFoundError,
    S3AccessError,
    S3ClockSkewError,
    S3CredentialsExpiredError,
    S3OperationError,
)
from osml_tasks.one_line import in_one_line
from osml_tasks.patience import UNANSWERED, clock_is_off, may_pass

if TYPE_CHECKING:
    from osml_tasks.s3_uri import S3Uri

Result = TypeVar("Result")

_PAUSES = (0.2, 0.8)
_LONG_SECONDS = 10
"""What has failed for so long is not made again here, s: the task comes back to it."""
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]+)")
_ERROR_CODE = re.compile(r"<Code>(.*?)</Code>", re.DOTALL)
_SERVER_TIME = re.compile(r"<ServerTime>(.*?)</ServerTime>")
_ERROR_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)


def again(request: Callable[[], Result], sleep: Callable[[float], None] = time.sleep) -> Result:
    """Make a request up to three times: for what obstore itself does not try again, or not for long enough.

    That is an access denied in passing, an answer cut short, a listing that cannot be read. Where boto3 has had no
    answer at all, it has tried again itself.

    :param sleep: waits so many seconds.
    :raises S3OperationError: the last time as well; what does not exist, or is in another region, is asked for once.
    """
    began = time.monotonic()
    for pause in _PAUSES:
        try:
            return request()
        except (ObjectNotFoundError, BucketRegionError):
            raise
        except S3OperationError as error:
            if time.monotonic() - began > _LONG_SECONDS or isinstance(error.__cause__, UNANSWERED):
                raise
            sleep(pause)
    return request()


@contextmanager
def errors(verb: str, uri: S3Uri) -> Iterator[None]:
    """Say every error of obstore in one line that names the request and the object.

    :raises S3OperationError: or one of its kinds, instead.
    """
    if uri.has_odd_parts:
        what = f"{verb} {in_one_line(str(uri))} failed"
        raise S3OperationError(
            f"{what}: a part of the key is empty, '.' or '..', or has a control character", uri=str(uri)
        )
    try:
        with signing_errors(verb, uri):
            yield
    except (NotFoundError, FileNotFoundError) as error:
        raise ObjectNotFoundError(f"{verb} {uri} failed: no such object or bucket", uri=str(uri)) from error
    except BaseError as error:
        raise _told(verb, uri, error, isinstance(error, PermissionDeniedError | UnauthenticatedError)) from error


@contextmanager
def signing_errors(verb: str, uri: S3Uri) -> Iterator[None]:
    """Say errors of botocore's in one line, where it gives the credentials for a request that others make.

    :raises S3OperationError: or one of its kinds, instead.
    """
    try:
        yield
    except CredentialsExpiredError as error:
        raise S3CredentialsExpiredError(f"{verb} {uri} failed: {error}", uri=str(uri)) from error
    except (ClientError, BotoCoreError) as error:
        kind = S3OperationError if may_pass(error) else S3AccessError
        raise kind(f"{verb} {uri} failed, no credentials: {_in_one_line(str(error))}", uri=str(uri)) from error


@contextmanager
def file_errors(verb: str, uri: S3Uri) -> Iterator[None]:
    """The same for obstore's files, which raise OSError with the same text.

    :raises S3OperationError: or one of its kinds, instead.
    """
    try:
        yield
    except OSError as error:
        raise _told(verb, uri, error) from error


def _told(verb: str, uri: S3Uri, error: Exception, denied: bool = False) -> S3OperationError:
    """An error of obstore's as one of ours: not all that it raises have a kind of their own."""
    text, line = str(error), _in_one_line(str(error))
    there = _SERVER_TIME.search(text)
    if skew := clock_is_off(line, there[1] if there else ""):
        return S3ClockSkewError(f"{verb} {uri} failed: {skew}", uri=str(uri))
    if (code := _ERROR_CODE.search(text)) and is_expiry(code[1]):
        return S3CredentialsExpiredError(f"{verb} {uri} failed: {complaint(line)}", uri=str(uri))
    if denied or "403 Forbidden" in text or "401 Unauthorized" in text:
        return S3AccessError(f"{verb} {uri} was denied: {line}", uri=str(uri))
    kind = ObjectNotFoundError if "404 Not Found" in text else S3OperationError
    return kind(f"{verb} {uri} failed: {line}", uri=str(uri))


def _in_one_line(text: str) -> str:
    """The code and message of S3's answer if there is one, else its status, or obstore's own first line."""
    code, message, status = _ERROR_CODE.search(text), _ERROR_MESSAGE.search(text), _STATUS.search(text)
    if code:
        return f"{code[1]}: {message[1]}" if message else code[1]
    if status:
        return status[1]
    return text.strip().splitlines()[0][:300] if text.strip() else "unknown error"
