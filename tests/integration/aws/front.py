"""What answers to AWS's own names: TLS by an authority of its own, signatures that are checked, servers of ours behind.

It listens on a loopback address, and is reached through the proxy beside it or by names that resolve to there.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import trustme
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

from tests.integration.aws.hosts import Host, host_of
from tests.integration.aws.keys import Keys, KeyStore
from tests.integration.aws.signatures import Request, Signed, authorization, has_signed_what_counts, signature
from tests.integration.serving import Serving
from tests.waiting import PATIENCE

REGION = "us-west-2"
_MOST_BYTES = 1 << 30
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length", "host"}
_LIBRARIES = {"obstore": r"object_store", "GDAL": r"GDAL", "boto3": r"Boto3"}
_LOCAL = "us-east-1"  # what the server behind takes for its region


@dataclass(frozen=True)
class Asked:
    """A request that came.

    :ivar library: ``boto3``, ``obstore``, ``GDAL`` or, for invocations without boto3's layers, ``runtime``.
    :ivar bucket: of a request to S3; an access point counts as its bucket.
    """

    name: str
    host: Host
    library: str
    request: Request
    bucket: str = ""
    path: str = ""


@dataclass(frozen=True)
class Answer:
    """What is answered instead of handing a request on."""

    status: int
    code: str = ""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


Fault = Callable[[Asked], Answer | None]


@dataclass(frozen=True)
class Behind:
    """The servers that do the work, and the keys that open S3."""

    s3: str
    endpoints: str
    sts: str
    s3_key: str
    s3_secret: str


class Front(Serving):
    """A context manager; its attributes may be changed while it runs.

    :ivar asked: what has come, in order.
    :ivar strangers: names that were asked for and are none of AWS's.
    :ivar faults: each may answer in place of the servers.
    :ivar regions: of buckets that are not in :data:`REGION`.
    :ivar requester_pays: buckets whose owner does not pay.
    :ivar access_points: the bucket of each.
    """

    def __init__(self, behind: Behind, directory: Path) -> None:
        super().__init__()
        self._behind = behind
        self.keys = KeyStore()
        self.asked: list[Asked] = []
        self.strangers: list[str] = []
        self.faults: list[Fault] = []
        self.regions: dict[str, str] = {}
        self.requester_pays: set[str] = set()
        self.access_points: dict[str, str] = {}
        self._authority = trustme.CA()
        self.ca_file = directory / "aws-ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca_file))
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.port = 0
        self.metadata_port = 0

    @property
    def hosts(self) -> set[str]:
        """The names that were asked for."""
        return {one.name for one in self.asked} | set(self.strangers)

    def by(self, library: str) -> list[Asked]:
        """What one library has asked for."""
        return [one for one in self.asked if one.library == library]

    @contextmanager
    def also_at(self, address: tuple[str, int]) -> Iterator[str]:
        """Listen at another address, too; says which."""
        site = self.on_loop(self._listen(address))
        try:
            yield address[0]
        finally:
            self.on_loop(site.stop())

    async def _listen(self, address: tuple[str, int]) -> web.TCPSite:
        site = web.TCPSite(self._runners[0], *address, ssl_context=self._tls(), backlog=1024)
        await site.start()
        return site

    async def open(self) -> None:
        """Listen for AWS's names, and for what asks for credentials."""
        self._http = ClientSession(
            auto_decompress=False, timeout=ClientTimeout(total=PATIENCE), connector=TCPConnector(limit=0)
        )
        self._runners = [web.AppRunner(app, access_log=None) for app in (self._aws(), self._metadata())]
        for runner in self._runners:
            await runner.setup()
        self.port = _port(await self._listen(("127.0.0.1", 0)))
        plain = web.TCPSite(self._runners[1], "127.0.0.1", 0)
        await plain.start()
        self.metadata_port = _port(plain)

    async def close(self) -> None:
        """Listen no more."""
        for runner in self._runners:
            await runner.cleanup()
        await self._http.close()

    def _aws(self) -> web.Application:
        app = web.Application(client_max_size=_MOST_BYTES)
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    def _tls(self) -> ssl.SSLContext:
        context = self._context("unnamed.invalid")

        def choose(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = self._context(name or "unnamed.invalid")

        context.sni_callback = choose  # type: ignore[assignment]
        return context

    def _context(self, name: str) -> ssl.SSLContext:
        if name not in self._contexts:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._authority.issue_cert(*_names_of(name)).configure_cert(context)
            self._contexts[name] = context
        return self._contexts[name]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        sent = Request(
            request.method,
            request.raw_path,
            {name.lower(): value for name, value in request.headers.items()},
            await request.read(),
        )
        name = sent.headers.get("host", "").lower()
        host = host_of(name)
        if host is None:
            self.strangers.append(name)
            return web.Response(status=400, text=f"{name} is not of AWS")
        asked = self._asked(name, host, sent)
        self.asked.append(asked)
        refused = next((answer for fault in self.faults if (answer := fault(asked))), None) or self._refusal(asked)
        return _refuse(asked, refused) if refused else await self._hand_on(asked)

    def _asked(self, name: str, host: Host, sent: Request) -> Asked:
        agent = sent.headers.get("user-agent", "")
        library = next((one for one, pattern in _LIBRARIES.items() if re.search(pattern, agent)), agent)
        if host.service != "s3":
            # boto3's own requests have a number each.
            is_short = host.service == "runtime" and "amz-sdk-invocation-id" not in sent.headers
            return Asked(name, host, "runtime" if is_short else library, sent)
        path = sent.target.partition("?")[0]
        bucket = host.bucket
        if bucket is None:
            bucket, _, rest = path.removeprefix("/").partition("/")
            path = f"/{rest}"
        return Asked(name, host, library, sent, self.access_points.get(unquote(bucket), unquote(bucket)), path)

    def _refusal(self, asked: Asked) -> Answer | None:
        if asked.host.service == "s3":
            region = self.regions.get(asked.bucket, REGION)
            if region != asked.host.region:
                told = {"x-amz-bucket-region": region}
                return Answer(301, "PermanentRedirect", "The bucket must be addressed using another endpoint.", told)
        if asked.host.service in ("sts", "sso"):
            return None
        return self._check_signature(asked) or self._check_payer(asked)

    def _check_signature(self, asked: Asked) -> Answer | None:
        signed = Signed.of(asked.request)
        keys = self.keys.of(signed.key) if signed else None
        if signed is None or keys is None:
            return Answer(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist.")
        if keys.token != asked.request.headers.get("x-amz-security-token"):
            return Answer(403, "InvalidToken", "The provided token is malformed or otherwise invalid.")
        service = "s3" if asked.host.service == "s3" else "sagemaker"
        if (signed.region, signed.service) != (asked.host.region, service):
            return Answer(400, "AuthorizationHeaderMalformed", f"the region {signed.region!r} is wrong")
        if not has_signed_what_counts(asked.request, signed) or not _fits(asked.request, signed, keys):
            return Answer(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        if keys.expires is not None and keys.expires <= datetime.now(UTC):
            code = "ExpiredToken" if service == "s3" else "ExpiredTokenException"
            return Answer(400 if service == "s3" else 403, code, "The provided token has expired.")
        return None

    def _check_payer(self, asked: Asked) -> Answer | None:
        if asked.bucket in self.requester_pays and asked.request.headers.get("x-amz-request-payer") != "requester":
            return Answer(403, "AccessDenied", "Access Denied")
        return None

    def _role_credentials(self) -> web.Response:
        """As the portal of the IAM Identity Center answers to who has signed in."""
        keys = self.keys.temporary()
        assert keys.expires is not None
        names = {"accessKeyId": keys.access_key, "secretAccessKey": keys.secret, "sessionToken": keys.token}
        return web.json_response({"roleCredentials": names | {"expiration": round(keys.expires.timestamp() * 1000)}})

    async def _hand_on(self, asked: Asked) -> web.Response:
        if asked.host.service == "sso":
            return self._role_credentials()
        sent, base = asked.request, self._base(asked)
        if asked.host.service == "s3":
            sent = self._signed_anew(asked)
        headers = {name: value for name, value in sent.headers.items() if name not in _HOP_BY_HOP}
        if "content-encoding" in sent.headers:
            headers["content-encoding"] = sent.headers["content-encoding"]
        if asked.host.service != "s3":
            headers["host"] = asked.name
        url = URL(base + sent.target, encoded=True)
        async with self._http.request(
            sent.method, url, headers=headers, data=sent.body, allow_redirects=False
        ) as response:
            body = await response.read()
            if asked.host.service == "sts":
                self.keys.learn(body.decode())
            kept = {name: value for name, value in response.headers.items() if name.lower() not in _HOP_BY_HOP}
            if sent.method == "HEAD":
                return web.Response(
                    status=response.status,
                    headers=kept | {"Content-Length": response.headers.get("Content-Length", "0")},
                )
            return web.Response(status=response.status, headers=kept, body=body)

    def _base(self, asked: Asked) -> str:
        servers = {"s3": self._behind.s3, "runtime": self._behind.endpoints, "api": self._behind.endpoints}
        return servers.get(asked.host.service, self._behind.sts)

    def _signed_anew(self, asked: Asked) -> Request:
        """The request as the server behind takes it: with the bucket in the path, and its own keys."""
        sent = asked.request
        query = sent.target.partition("?")[2]
        target = f"/{asked.bucket}{asked.path}" + (f"?{query}" if query else "")
        headers = {
            name: value
            for name, value in sent.headers.items()
            if name not in ("authorization", "x-amz-security-token", "x-amz-request-payer")
        }
        headers["host"] = self._behind.s3.removeprefix("http://")
        names = sorted(name for name in headers if name == "host" or name.startswith("x-amz-"))
        day = headers.get("x-amz-date", "")[:8]
        signed = Signed(self._behind.s3_key, day, _LOCAL, "s3", names, "")
        moved = replace(sent, target=target, headers=headers)
        headers["authorization"] = authorization(signed, signature(moved, signed, self._behind.s3_secret))
        return moved

    def _metadata(self) -> web.Application:
        """Where machines of AWS have their credentials from: containers, and IMDSv2."""
        app = web.Application()

        async def container(_: web.Request) -> web.Response:
            return web.json_response(self.keys.temporary().document)

        async def token(_: web.Request) -> web.Response:
            return web.Response(text="token", headers={"x-aws-ec2-metadata-token-ttl-seconds": "60"})

        async def role(_: web.Request) -> web.Response:
            return web.Response(text="worker")

        async def of_role(request: web.Request) -> web.Response:
            if request.headers.get("x-aws-ec2-metadata-token") != "token":
                return web.Response(status=401)
            document = {"Code": "Success", "Type": "AWS-HMAC"} | self.keys.temporary().document
            return web.Response(text=json.dumps(document))

        app.router.add_get("/container", container)
        app.router.add_put("/latest/api/token", token)
        app.router.add_get("/latest/meta-data/iam/security-credentials/", role)
        app.router.add_get("/latest/meta-data/iam/security-credentials/worker", of_role)
        return app


def _names_of(name: str) -> tuple[str, ...]:
    """What the certificate of a host is for: S3's cover one more label, as AWS's do."""
    if match := re.fullmatch(r".+\.(s3(?:-[a-z]+)*\..+)", name):
        return (f"*.{match[1]}", match[1])
    return (name,)


def _fits(request: Request, signed: Signed, keys: Keys) -> bool:
    return signature(request, signed, keys.secret) == signed.signature


def _refuse(asked: Asked, answer: Answer) -> web.Response:
    headers = {"x-amzn-RequestId": "0", "x-amz-request-id": "0", **answer.headers}
    if asked.host.service in ("runtime", "api"):
        headers |= {"x-amzn-ErrorType": answer.code}
        return web.json_response({"message": answer.message}, status=answer.status, headers=headers)
    region = answer.headers.get("x-amz-bucket-region", "")
    more = f"<Region>{region}</Region>" if region else ""
    text = f"<Error><Code>{answer.code}</Code><Message>{answer.message}</Message>{more}</Error>"
    if asked.request.method == "HEAD":
        return web.Response(status=answer.status, headers=headers)
    return web.Response(status=answer.status, headers=headers, text=text, content_type="application/xml")


def _port(site: web.TCPSite) -> int:
    server: Any = site._server
    return int(server.sockets[0].getsockname()[1])
