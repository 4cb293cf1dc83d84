"""What goes with every request to S3: the encryption of what is written, who owns a bucket, and who pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from osml_tasks.config import AsyncEndpointConfig

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

OWNER_HEADER = "x-amz-expected-bucket-owner"


@dataclass(frozen=True, slots=True)
class S3Settings:
    """What goes with the requests.

    :ivar encryption: of what is written: ``AES256``, ``aws:kms``, ``aws:kms:dsse``; None as the bucket says.
    :ivar kms_key_id: the key of the latter two; None for AWS's own.
    :ivar owners: for each bucket the account that must own it; of others nothing is asked.
    :ivar requester_pays: whether this side agrees to pay for requests to requester-pays buckets.
    """

    encryption: str | None = None
    kms_key_id: str | None = None
    owners: Mapping[str, str] = field(default_factory=dict)
    requester_pays: bool = False

    @classmethod
    def of(cls, config: AsyncEndpointConfig) -> S3Settings:
        """What a configuration asks for."""
        return cls(config.s3_sse, config.s3_sse_kms_key_id, config.bucket_owners, config.request_payer is not None)

    def headers(self, bucket: str) -> ClientConfig:
        """obstore's options for a bucket's client; it signs these headers, too."""
        owner = self.owners.get(bucket)
        return {} if owner is None else {"default_headers": {OWNER_HEADER: owner}}

    def store_options(self) -> S3Config:
        """obstore's options for each request to a bucket."""
        options: S3Config = {}
        if self.encryption is not None:
            options["server_side_encryption"] = self.encryption
        if self.kms_key_id is not None:
            options["sse_kms_key_id"] = self.kms_key_id
        if self.requester_pays:
            options["request_payer"] = True
        return options

    def apply_to(self, client: Any) -> None:
        """Have each request of a boto3 client ask for the owner, and agree to pay; obstore writes the objects."""
        client.meta.events.register("provide-client-params.s3", self._complete)

    def _complete(self, params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
        owner = self.owners.get(params.get("Bucket", ""))
        more = {} if owner is None else {"ExpectedBucketOwner": owner}
        if self.requester_pays and "RequestPayer" in model.input_shape.members:
            more["RequestPayer"] = "requester"
        return params | more if more else params
