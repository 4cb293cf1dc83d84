"""What may stand in no log: credentials and query strings, taken out of a text wherever they are in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

MASK = "***"

_SHORTEST_SECRET = 2  # of an external id, says AWS

# Up to the last @ of the word: a password may have been written without escaping it. What looks like
# a port and a path is none, though the path may have an @.
_USERINFO = re.compile(r"(?<=://)(?:[^\s/?#:@]*:(?!\d{1,5}[/?#])\S*|[^\s/?#]*)@")
_QUERY = re.compile(r"(?<=://)([^\s?]*)\?\S*")
_ACCESS_KEY_ID = re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{12,}")
# As boto3, botocore's requests, STS's XML, a profile, the environment and presigned URLs spell them.
_NAMED = re.compile(
    r"""(?ix) (
        (?: secret[_-]?access[_-]?key | session[_-]?token | security[_-]?token | external[_-]?id
          | x-amz-signature | x-amz-credential | signature | password )
        \\*["']? \s* [:=>] \s* b?\\*["']?
    ) [^\s"'<>,;&)\]}\\]+"""
)


class Redaction:
    """Takes credentials and query strings out of a text.

    What stands in a URL before its host or after a question mark, AWS access key ids, and the value
    behind a name such as ``aws_secret_access_key=`` are known by their form.

    :param secrets: what is to be taken out wherever it stands, plain or percent-encoded.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        spelt = known | {quote(secret, safe="") for secret in known}
        longest_first = sorted(spelt, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if spelt else None

    def __call__(self, text: str) -> str:
        """The text without them."""
        if self._secrets is not None:
            text = self._secrets.sub(MASK, text)
        text = _USERINFO.sub(f"{MASK}@", text)
        text = _QUERY.sub(r"\1", text)
        text = _ACCESS_KEY_ID.sub(MASK, text)
        return _NAMED.sub(rf"\g<1>{MASK}", text)
