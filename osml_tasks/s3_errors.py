"""What obstore's errors mean, in one line each that names the request and the object."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError

from osml_tasks.errors import ObjectNotFoundError, S3AccessError, S3OperationError
from osml_tasks.one_line import in_one_line
from osml_tasks.patience import may_pass

if TYPE_CHECKING:
    from osml_tasks.s3 import S3Uri

_ERROR_CODE = re.compile(r"<Code>(.*?)</Code>", re.DOTALL)
_ERROR_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)


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
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise ObjectNotFoundError(f"{verb} {uri} failed: no such object or bucket", uri=str(uri)) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise S3AccessError(f"{verb} {uri} was denied: {_in_one_line(str(error))}", uri=str(uri)) from error
    except (ClientError, BotoCoreError) as error:
        kind = S3OperationError if may_pass(error) else S3AccessError
        raise kind(f"{verb} {uri} failed, no credentials: {_in_one_line(str(error))}", uri=str(uri)) from error
    except BaseError as error:
        raise S3OperationError(f"{verb} {uri} failed: {_in_one_line(str(error))}", uri=str(uri)) from error


@contextmanager
def file_errors(verb: str, uri: S3Uri) -> Iterator[None]:
    """The same for obstore's files, which raise OSError with the same text.

    :raises S3OperationError: or one of its kinds, instead.
    """
    try:
        yield
    except OSError as error:
        text = str(error)
        denied = "403 Forbidden" in text or "401 Unauthorized" in text
        kind = S3AccessError if denied else ObjectNotFoundError if "404 Not Found" in text else S3OperationError
        raise kind(
            f"{verb} {uri} {'was denied' if denied else 'failed'}: {_in_one_line(text)}", uri=str(uri)
        ) from error


def _in_one_line(text: str) -> str:
    """The code and message of S3's answer if there is one, else obstore's own first line."""
    code, message = _ERROR_CODE.search(text), _ERROR_MESSAGE.search(text)
    if code:
        return f"{code[1]}: {message[1]}" if message else code[1]
    return text.strip().splitlines()[0][:300] if text.strip() else "unknown error"
