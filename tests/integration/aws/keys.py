"""The keys that the front of AWS knows, and the places that hand them out."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

_MEMBER = re.compile(r"<(AccessKeyId|SecretAccessKey|SessionToken|Expiration)>([^<]+)<")


@dataclass(frozen=True)
class Keys:
    """What a request may be signed with.

    :ivar token: goes with each request; None for a user's own keys.
    :ivar expires: None: never.
    """

    access_key: str
    secret: str
    token: str | None = None
    expires: datetime | None = None

    @property
    def variables(self) -> dict[str, str]:
        """What boto3 reads from an environment."""
        found = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret}
        return found | ({"AWS_SESSION_TOKEN": self.token} if self.token else {})

    @property
    def document(self) -> dict[str, Any]:
        """As metadata services and credential processes answer."""
        assert self.token is not None
        assert self.expires is not None
        return {
            "Version": 1,
            "AccessKeyId": self.access_key,
            "SecretAccessKey": self.secret,
            "Token": self.token,
            "SessionToken": self.token,
            "Expiration": f"{self.expires.replace(tzinfo=None).isoformat()}Z",
        }


class KeyStore:
    """All keys that have ever been given.

    :ivar lifetime: of those that are given from now on, s.
    :ivar given: how many there were.
    """

    def __init__(self) -> None:
        self._keys: dict[str, Keys] = {}
        self.lifetime = 3600.0
        self.given = 0

    def of(self, access_key: str) -> Keys | None:
        """The keys of this name."""
        return self._keys.get(access_key)

    def user(self) -> Keys:
        """Make keys that do not expire."""
        return self._add(Keys(f"AKIA{secrets.token_hex(8).upper()}", secrets.token_hex(20)))

    def temporary(self) -> Keys:
        """Make keys that expire after :attr:`lifetime`."""
        expires = datetime.now(UTC) + timedelta(seconds=self.lifetime)
        self.given += 1
        return self._add(
            Keys(f"ASIA{secrets.token_hex(8).upper()}", secrets.token_hex(20), secrets.token_hex(80), expires)
        )

    def learn(self, answer: str) -> None:
        """Take up the keys that STS has given in an answer, if there are any."""
        told: dict[str, Any] = dict(_MEMBER.findall(answer))
        if "AccessKeyId" in told:
            expires = datetime.fromisoformat(told["Expiration"].replace("Z", "+00:00"))
            self._add(Keys(told["AccessKeyId"], told["SecretAccessKey"], told["SessionToken"], expires))

    def _add(self, keys: Keys) -> Keys:
        self._keys[keys.access_key] = keys
        return keys
