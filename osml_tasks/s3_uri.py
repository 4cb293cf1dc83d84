"""S3 URIs: a bucket and a key."""

from __future__ import annotations

import re
from dataclasses import dataclass

from osml_tasks.errors import ExtensionConfigurationError

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_NAME = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
# As botocore takes it in a bucket's place.
_ACCESS_POINT = r"arn:aws[a-z-]*:s3:[a-z0-9-]+:[0-9]{12}:accesspoint[:/][a-z0-9][a-z0-9-]{1,48}[a-z0-9]"
BUCKET = rf"{_NAME}|{_ACCESS_POINT}"
"""What a bucket is called: its name or alias, or the ARN of an access point. A regular expression."""

_URI = re.compile(rf"s3://({BUCKET})(?:/(.*))?", re.DOTALL)
_NO_PLAIN_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class S3Uri:
    """A bucket and a key (or prefix), written ``s3://bucket/key``.

    :ivar bucket: its name or alias, or the ARN of an access point.
    """

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> S3Uri:
        """Read ``s3://bucket/key``.

        :raises ExtensionConfigurationError: if the text is anything else.
        """
        match = _URI.fullmatch(text)
        if match is None:
            raise ExtensionConfigurationError(f"{text!r} is not an S3 URI: write it as s3://bucket/key")
        return cls(match[1], match[2] or "")

    @property
    def parent(self) -> S3Uri:
        """The prefix that the key lies under, without a slash at its end."""
        return S3Uri(self.bucket, self.key.rpartition("/")[0])

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    def child(self, name: str) -> S3Uri:
        """A key, or prefix, right under this prefix."""
        return S3Uri(self.bucket, f"{self.key.rstrip('/')}/{name}".lstrip("/"))

    @property
    def has_odd_parts(self) -> bool:
        """Whether a part of the key is empty, ``.`` or ``..``, or no plain text: obstore takes no such key."""
        if not self.key:
            return False
        parts = self.key.removesuffix("/").split("/")
        return not {"", ".", ".."}.isdisjoint(parts) or _NO_PLAIN_TEXT.search(self.key) is not None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def is_uri(text: str) -> bool:
    """Whether a text is an S3 URI."""
    return _URI.fullmatch(text) is not None
