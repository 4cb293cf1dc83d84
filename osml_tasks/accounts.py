"""Sessions for other AWS accounts: from credentials that STS has handed out, or by assuming a role."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import BotoCoreError, ClientError

from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import ExtensionConfigurationError, RoleRefusedError
from osml_tasks.patience import may_pass
from osml_tasks.service_data import core_session

_MEMBERS = ("AccessKeyId", "SecretAccessKey", "SessionToken")
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException"})
_UNKNOWN = frozenset({"InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"})
_STS = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 4})


def session_with(credentials: Mapping[str, Any], region: str | None = None) -> boto3.Session:
    """A session of temporary credentials, which nobody renews.

    :param credentials: ``AccessKeyId``, ``SecretAccessKey``, ``SessionToken`` and perhaps ``Expiration``,
        as STS answers them; or the whole answer, with these under ``Credentials``.
    :param region: default: as boto3 finds it.
    :raises ExtensionConfigurationError: a member is missing or empty, or they have expired.
    """
    given = credentials.get("Credentials", credentials)
    if not isinstance(given, Mapping):
        raise ExtensionConfigurationError("Credentials is no dictionary: pass what STS answered")
    # Whatever is wrong, only names are said: a value may be a secret, even under the wrong name.
    for name in _MEMBERS:
        if not isinstance(given.get(name), str) or not given[name].strip():
            raise ExtensionConfigurationError(f"credentials have no {name}: pass them as STS answered them")
    if given.get("Expiration") is not None:
        _check_expiration(given["Expiration"])
    key, secret, token = (str(given[name]) for name in _MEMBERS)
    return boto3.Session(
        aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token, region_name=region
    )


def _check_expiration(value: object) -> None:
    try:
        expiration = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise ExtensionConfigurationError("Expiration of the credentials is not an ISO 8601 time: correct it") from None
    if expiration.tzinfo is None:
        expiration = expiration.replace(tzinfo=UTC)
    if expiration <= datetime.now(UTC):
        raise ExtensionConfigurationError(f"the credentials expired at {expiration.isoformat()}: get new ones from STS")


def session_assuming(
    role_arn: str,
    external_id: str | None = None,
    session: boto3.Session | None = None,
    *,
    duration: int = 3600,
) -> boto3.Session:
    """A session that assumes a role at its first request, and again before what that gave expires.

    A refusal appears at a request, as :class:`RoleRefusedError`; this call asks nobody.

    :param external_id: what the role's trust policy asks for; default: nothing.
    :param session: whose credentials assume the role, and whose region stays; default: as boto3 finds them.
    :param duration: life of each set of credentials, s, 900 to 43,200. Default 3600: a role that was
        assumed by another role gets no more.
    """
    return _RoleSession(session or _own_session(), role_arn, external_id, duration)


def session_of(config: AsyncEndpointConfig, session: boto3.Session | None = None) -> boto3.Session:
    """The session that a configuration asks for: of its role, if it names one.

    :param session: whose credentials are used, or assume the role; one that has this role already is
        returned as it is. Default: as boto3 finds them.
    :raises ExtensionConfigurationError: the profile that the environment names is not there.
    """
    role = config.assume_role_arn
    if role is None:
        return session or _own_session()
    if isinstance(session, _RoleSession) and session.role_arn == role:
        return session
    return session_assuming(role, config.external_id, session)


def _own_session() -> boto3.Session:
    try:
        return boto3.Session(botocore_session=core_session())
    except BotoCoreError as error:
        # Of a profile that is not there, or a file that cannot be read.
        reason = " ".join(str(error).split())
        raise ExtensionConfigurationError(f"{reason}: correct AWS_PROFILE or AWS_CONFIG_FILE") from None


class _RoleSession(boto3.Session):
    """A session of an assumed role."""

    def __init__(self, source: boto3.Session, role_arn: str, external_id: str | None, duration: int) -> None:
        self.role_arn = role_arn
        core = core_session()
        core.register_component("credential_provider", CredentialResolver([_Role(source, self, external_id, duration)]))
        profile = None if source.profile_name == "default" else source.profile_name
        super().__init__(region_name=source.region_name, botocore_session=core, profile_name=profile)
        logging.getLogger("botocore.credentials").addFilter(_in_one_line)


class _Role(CredentialProvider):
    """Where a session of an assumed role has its credentials from."""

    METHOD = "assume-role"

    def __init__(self, source: boto3.Session, session: _RoleSession, external_id: str | None, duration: int) -> None:
        super().__init__()
        self._source = source
        self._role_arn = session.role_arn
        self._external_id = external_id
        self._arguments: dict[str, Any] = {"RoleSessionName": session_name(), "DurationSeconds": duration}
        if external_id is not None:
            self._arguments["ExternalId"] = external_id

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(self._fetch, self.METHOD)

    def _fetch(self) -> dict[str, Any]:
        """Ask STS. What may pass is raised as botocore has it, so that it is tried again as elsewhere."""
        try:
            credentials = self._source.get_credentials()
            if credentials is None:
                raise RoleRefusedError(
                    f"no AWS credentials found to assume role {self._role_arn} with: "
                    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )
            fetcher = AssumeRoleCredentialFetcher(
                partial(self._source.client, config=_STS), credentials, self._role_arn, extra_args=self._arguments
            )
            fetched: dict[str, Any] = fetcher.fetch_credentials()
            return fetched
        except (ClientError, BotoCoreError) as error:
            if may_pass(error):
                raise
            # Not "from error": its traceback says nothing more, and may quote the external id.
            raise RoleRefusedError(self._explain(error)) from None

    def _explain(self, error: ClientError | BotoCoreError) -> str:
        text = " ".join(str(error).split())
        code = ""
        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "")
            text = f"{code}: {' '.join(error.response.get('Error', {}).get('Message', '').split())}"
        if self._external_id:
            text = text.replace(self._external_id, "***")
        return f"role {self._role_arn} cannot be assumed: {text}: {self._advice(code)}"

    def _advice(self, code: str) -> str:
        if code in _EXPIRED:
            return "renew the credentials that assume it"
        if code in _UNKNOWN:
            return "correct the credentials that assume it"
        given = "the one given with it" if self._external_id else "none is given"
        return (
            "correct ASYNC_SM_ASSUME_ROLE_ARN, let its trust policy name who assumes it, allow them sts:AssumeRole, "
            f"and check the external id, ASYNC_SM_EXTERNAL_ID ({given})"
        )


def session_name() -> str:
    """``RoleSessionName`` of this process: what the other account's trail calls it. At most 64 characters."""
    host = re.sub(r"[^\w+=,.@-]", "-", socket.gethostname(), flags=re.ASCII)[:40]
    return f"osml-tasks-{host}-{os.getpid()}"


def _in_one_line(record: logging.LogRecord) -> bool:
    """Take the traceback off botocore's warning of a refused role: the error is one line, and is raised as well."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, RoleRefusedError):
        record.msg, record.args = "%s", (str(error),)
        record.exc_info = record.exc_text = None
    return True
