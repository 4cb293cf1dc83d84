"""What requests are signed with: the credentials of a session, as they are at the moment."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    LoginError,
    MetadataRetrievalError,
    SSOError,
    TokenRetrievalError,
)

from osml_tasks.errors import CredentialsExpiredError, ExtensionConfigurationError

if TYPE_CHECKING:
    from obstore.store import S3Credential

_NONE = "no AWS credentials found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_NOT_RENEWED = (CredentialRetrievalError, LoginError, MetadataRetrievalError, SSOError, TokenRetrievalError)
_STILL_EXPIRED = "refreshed credentials are still expired"  # botocore has no type for it
# How botocore calls credentials that it has read from a file, and does not read again.
_OF_FILES = {"shared-credentials-file": "credentials_file", "config-file": "config_file"}
_KEPT = timedelta(seconds=60)
_SPARE_SECONDS = 600


class SessionCredentials:
    """The credentials of a session, renewed when they are due. Thread-safe.

    botocore renews what it knows the end of. Those that another program writes into the shared credentials file it
    reads once; here they are read again when that file has changed, for every client of the session.

    :param session: a boto3 session.
    :raises ExtensionConfigurationError: it has no credentials.
    """

    # obstore asks again at the end of what it was given, and no sooner.
    refresh_threshold = timedelta(0)

    def __init__(self, session: boto3.Session) -> None:
        credentials: Any = session.get_credentials()
        if credentials is None:
            raise ExtensionConfigurationError(_NONE)
        self._credentials = credentials
        self._core = session._session
        self._lock = Lock()
        self._file = self._find_file()
        # None: the session may have read it before it was last written.
        self._version: int | None = None if self._file else 0

    def frozen(self) -> ReadOnlyCredentials:
        """Take the credentials as they are now.

        :raises CredentialsExpiredError: they have expired, and cannot be renewed now.
        :raises RoleRefusedError: the role that they come from cannot be assumed.
        :raises botocore.exceptions.BotoCoreError: they cannot be had for now.
        """
        if self._file_version() != self._version:
            self._read_again()
        try:
            found: ReadOnlyCredentials = self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError, RuntimeError) as error:
            if line := expired(error):
                raise CredentialsExpiredError(line) from error
            raise
        return found

    def __call__(self) -> S3Credential:
        """Hand them to obstore, for as long as they are good for certain."""
        now, found = datetime.now(UTC), self.frozen()
        return {
            "access_key_id": str(found.access_key),
            "secret_access_key": str(found.secret_key),
            "token": found.token,
            "expires_at": now if self._end_is_near() else now + _KEPT,
        }

    def _end_is_near(self) -> bool:
        needs_refresh = getattr(self._credentials, "refresh_needed", None)
        return needs_refresh is not None and bool(needs_refresh(refresh_in=_SPARE_SECONDS))

    def _find_file(self) -> Path | None:
        variable = _OF_FILES.get(self._credentials.method)
        return None if variable is None else Path(self._core.get_config_variable(variable)).expanduser()

    def _file_version(self) -> int:
        if self._file is not None:
            with suppress(OSError):
                return self._file.stat().st_mtime_ns
        return 0

    def _read_again(self) -> None:
        """Put what the file has now into the credentials that all clients of the session share."""
        with self._lock:
            version = self._file_version()
            with suppress(BotoCoreError):
                found: Any = botocore.session.Session(profile=self._core.profile).get_credentials()
                if found is not None and found.method == self._credentials.method:
                    for name in ("access_key", "secret_key", "token"):
                        setattr(self._credentials, name, getattr(found, name))
                    self._version = version


def expired(error: BaseException) -> str | None:
    """What to say of an error, if it is that credentials have expired; None if it is another.

    :param error: botocore's, of a request or of getting credentials for one.
    """
    reason = " ".join(str(error).split())
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        if not is_expiry(said.get("Code", "")):
            return None
        reason = f"{said['Code']}: {said.get('Message', '')}"
    elif not isinstance(error, _NOT_RENEWED) and _STILL_EXPIRED not in reason:
        return None
    return complaint(reason)


def is_expiry(code: str) -> bool:
    """Whether an error code of AWS says that credentials have expired."""
    return code in _EXPIRED


def complaint(reason: str) -> str:
    """Say that credentials have expired, and what to do.

    :param reason: what AWS or botocore says of it.
    """
    return (
        f"the AWS credentials have expired, or cannot be had ({reason.rstrip(': .')}): renew them, for instance with "
        "'aws sso login'"
    )
