"""AWS Signature Version 4, as a server checks it.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, "
    r"SignedHeaders=(?P<headers>[^,]+), Signature=(?P<signature>[0-9a-f]{64})"
)
_IN_WORDS = re.compile(r"UNSIGNED-PAYLOAD|STREAMING-[A-Z0-9-]+")


@dataclass(frozen=True)
class Request:
    """What was sent.

    :ivar target: path and query as they stood in the first line.
    :ivar headers: by names in lower case.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Signed:
    """What an ``Authorization`` says."""

    key: str
    day: str
    region: str
    service: str
    headers: Sequence[str]
    signature: str

    @classmethod
    def of(cls, request: Request) -> Signed | None:
        """What a request says; None if it is not signed."""
        found = re.sub(r",\s*", ", ", request.headers.get("authorization", ""))
        match = _AUTHORIZATION.fullmatch(found)
        if match is None:
            return None
        return cls(*match.group("key", "day", "region", "service"), match["headers"].split(";"), match["signature"])


def has_signed_what_counts(request: Request, signed: Signed) -> bool:
    """Whether host and all headers of AWS's own are signed, and the body is the one that was."""
    ours = {name for name in request.headers if name == "host" or name.startswith("x-amz-")}
    told = request.headers.get("x-amz-content-sha256", "")
    is_body = not told or _IN_WORDS.fullmatch(told) or hashlib.sha256(request.body).hexdigest() == told
    return ours <= set(signed.headers) and bool(is_body)


def signature(request: Request, signed: Signed, secret: str) -> str:
    """The signature that a request should have."""
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in signed.headers)
    path, _, query = request.target.partition("?")
    body = request.headers.get("x-amz-content-sha256") or hashlib.sha256(request.body).hexdigest()
    # Every service but S3 has the path encoded once more.
    path = path if signed.service == "s3" else quote(path, safe="/~")
    canonical = "\n".join([request.method, path, _sorted(query), headers, ";".join(signed.headers), body])
    scope = f"{signed.day}/{signed.region}/{signed.service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", request.headers.get("x-amz-date", ""), scope, digest])
    return hmac.new(_signing_key(secret, signed), text.encode(), hashlib.sha256).hexdigest()


def authorization(signed: Signed, value: str) -> str:
    """The header with a signature."""
    scope = f"{signed.day}/{signed.region}/{signed.service}/aws4_request"
    names = ";".join(signed.headers)
    return f"AWS4-HMAC-SHA256 Credential={signed.key}/{scope}, SignedHeaders={names}, Signature={value}"


def _sorted(query: str) -> str:
    pairs = (pair if "=" in pair else f"{pair}=" for pair in query.split("&") if pair)
    return "&".join(sorted(pairs, key=lambda pair: pair.split("=", 1)))


def _signing_key(secret: str, signed: Signed) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (signed.day, signed.region, signed.service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
