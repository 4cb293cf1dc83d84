"""AWS's names of hosts: which service, region and bucket each stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SUFFIX = r"amazonaws\.com(?:\.cn)?"
_REGION = r"(?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d)"
_S3 = re.compile(rf"(?:(?P<bucket>[^.]+)\.)?s3(?P<fips>-fips)?(?:\.dualstack)?(?:\.{_REGION})?\.{_SUFFIX}")
_ACCESS_POINT = re.compile(
    rf"(?P<bucket>.+)-\d{{12}}\.s3-accesspoint(?P<fips>-fips)?(?:\.dualstack)?\.{_REGION}\.{_SUFFIX}"
)
_VPC_ENDPOINT = re.compile(rf"bucket\.vpce-[a-z0-9-]+\.s3\.{_REGION}\.vpce\.{_SUFFIX}")
_SAGEMAKER = re.compile(
    rf"(?P<service>runtime|api)(?P<fips>-fips)?\.sagemaker\.{_REGION}\.{_SUFFIX}"
    rf"|(?P<dual>runtime|api)\.sagemaker(?P<fips_dual>-fips)?\.(?P<region_dual>[a-z0-9-]+)\.api\.aws"
)
_STS = re.compile(rf"sts(?P<fips>-fips)?(?:\.{_REGION})?\.{_SUFFIX}")
_SSO = re.compile(rf"portal\.sso(?P<fips>-fips)?\.{_REGION}\.{_SUFFIX}")


@dataclass(frozen=True)
class Host:
    """What a name stands for.

    :ivar service: ``s3``, ``runtime``, ``api``, ``sts`` or ``sso``.
    :ivar bucket: the bucket in the name, or the access point; None where it is in the path.
    """

    service: str
    region: str
    bucket: str | None = None
    fips: bool = False


def host_of(name: str) -> Host | None:
    """What a name stands for; None if it is none of AWS's, or one that its certificates do not cover."""
    if match := _ACCESS_POINT.fullmatch(name) or _S3.fullmatch(name):
        return Host("s3", match["region"] or "us-east-1", match["bucket"], bool(match["fips"]))
    if match := _VPC_ENDPOINT.fullmatch(name):
        return Host("s3", match["region"])
    if match := _SAGEMAKER.fullmatch(name):
        service, region = match["service"] or match["dual"], match["region"] or match["region_dual"]
        return Host(service, region, fips=bool(match["fips"] or match["fips_dual"]))
    for service, pattern in (("sts", _STS), ("sso", _SSO)):
        if match := pattern.fullmatch(name):
            return Host(service, match["region"] or "us-east-1", fips=bool(match["fips"]))
    return None
