"""A fleet for which AWS is where it always is: at AWS's own names, by TLS, with no endpoint overridden.

Behind the names are the local stack's S3 server, the local endpoint, and moto's STS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from random import SystemRandom

from osml_tasks.child_process import ChildProcess
from osml_tasks.local.broker import Broker
from osml_tasks.local.object_store import ObjectStore
from osml_tasks.local.server import LOOPBACK, free_port
from tests.integration.aws.front import REGION, Behind, Front
from tests.integration.aws.keys import Keys
from tests.integration.aws.proxy import Proxy
from tests.integration.cloud import answers
from tests.integration.endpoints import ELSEWHERE, OUTPUTS
from tests.integration.fleet import (
    ENDPOINTS_READY,
    INPUTS,
    WORKERS_READY,
    Fleet,
    clean_environment,
    start_python,
)
from tests.integration.forked import BY_ITSELF
from tests.waiting import PATIENCE

DOTTED = "fleet.with.dots"
BUCKETS = (INPUTS, OUTPUTS, ELSEWHERE, DOTTED)
WRAPPER = next((str(path) for path in sorted(Path("/usr/lib").glob("*/libnss_wrapper.so"))), None)
"""The library by which names resolve as a file says; None where Debian's package libnss-wrapper is not installed."""
_S3_HOSTS = tuple(f"{name}.{REGION}.amazonaws.com" for name in ("s3", "s3-fips", "s3.dualstack", "s3-fips.dualstack"))
_HOSTS = (
    *(f"{name}.{REGION}.amazonaws.com" for name in ("runtime.sagemaker", "runtime-fips.sagemaker")),
    *(f"{name}.{REGION}.amazonaws.com" for name in ("api.sagemaker", "api-fips.sagemaker", "sts", "sts-fips")),
    *(f"{name}.sagemaker{fips}.{REGION}.api.aws" for name in ("runtime", "api") for fips in ("", "-fips")),
)


@dataclass(frozen=True)
class Bed:
    """Everything, and how to reach it.

    :ivar user: keys that may do everything, and do not expire.
    :ivar inside: what leads past the front, to S3's server itself.
    """

    front: Front
    proxy: Proxy
    broker: Broker
    store: ObjectStore
    endpoints_url: str
    user: Keys
    directory: Path
    inside: Mapping[str, str]
    running: ExitStack
    taken: list[int] = field(default_factory=list)

    @property
    def aws(self) -> dict[str, str]:
        """The variables of a user of AWS behind a proxy, less the credentials."""
        return {
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CA_BUNDLE": str(self.front.ca_file),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.directory / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.directory / "no-credentials"),
            "HTTPS_PROXY": self.proxy.url,
            "NO_PROXY": LOOPBACK,
        }

    @property
    def osml(self) -> dict[str, str]:
        """The variables that say where jobs go, with a broker that nobody else uses."""
        self.taken.append(len(self.taken))
        url = f"{self.broker.url.rpartition('/')[0]}/{self.taken[-1]}"
        return {
            "CELERY_BROKER_URL": url,
            "CELERY_RESULT_BACKEND": url,
            "ARTIFACT_BUCKET": INPUTS,
            "ASYNC_SM_OUTPUT_BUCKET": OUTPUTS,
            "ASYNC_SM_POLLING_INTERVAL": "0.2",
            "ASYNC_SM_MAX_POLLING_INTERVAL": "0.5",
            "ASYNC_SM_SUBMISSION_WORKERS": "1",
            "ASYNC_SM_POLLING_WORKERS": "1",
            # Each command as it is for a user, from its first import on.
            **BY_ITSELF,
        }

    @contextmanager
    def fleet(self, **variables: str | None) -> Iterator[Fleet]:
        """Workers of a user, and a client beside them.

        :param variables: over those of :attr:`aws` and of the user's keys; None takes one away.
        """
        given = self.aws | self.user.variables | self.osml | variables
        env = {name: value for name, value in given.items() if value is not None}
        tiles = self.directory / f"tiles-{len(self.taken)}"
        tiles.mkdir()
        with ExitStack() as running:
            workers = start_python(
                running,
                f"workers-{len(self.taken)}",
                ["-m", "osml_tasks", "worker"],
                self.directory,
                env | {"ASYNC_SM_TILE_ROOTS": str(tiles)},
                WORKERS_READY,
            )
            yield Fleet(env, self.endpoints_url, tiles, workers.log_text)

    @property
    def seen(self) -> Fleet:
        """A way to look at objects that nobody notices."""
        return Fleet(self.inside, self.endpoints_url, self.directory, str)

    def names(self) -> dict[str, str]:
        """The variables by which AWS's names lead to a front of their own, without a proxy.

        The front is the same, at port 443 of a loopback address.
        """
        address = str(IPv4Address("127.64.0.0") + SystemRandom().randrange(1, 1 << 20))
        direct = self.running.enter_context(self.front.also_at((address, 443)))
        buckets = [f"{bucket}.{host}" for bucket in BUCKETS for host in _S3_HOSTS]
        file = self.directory / f"hosts-{address}"
        file.write_text("".join(f"{direct} {name}\n" for name in (*_HOSTS, *_S3_HOSTS, *buckets)))
        return {"LD_PRELOAD": str(WRAPPER), "NSS_WRAPPER_HOSTS": str(file)}


@contextmanager
def bed(directory: Path) -> Iterator[Bed]:
    """Bring it up, without workers."""
    with ExitStack() as running:
        broker = running.enter_context(Broker(directory / "broker"))
        store = running.enter_context(ObjectStore(directory / "s3", BUCKETS, disposable=True))
        endpoints = start_python(
            running, "endpoints", ["-m", "tests.integration.endpoints"], directory, store.env, ENDPOINTS_READY
        )
        url = ENDPOINTS_READY.findall(endpoints.log_text())[0]
        key, secret = store.env["AWS_ACCESS_KEY_ID"], store.env["AWS_SECRET_ACCESS_KEY"]
        behind = Behind(store.endpoint_url, url, _sts(running, directory), key, secret)
        front = running.enter_context(Front(behind, directory))
        proxy = running.enter_context(Proxy(front.port))
        yield Bed(front, proxy, broker, store, url, front.keys.user(), directory, store.env, running)


def _sts(running: ExitStack, directory: Path) -> str:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    server = ChildProcess("moto", command, directory=directory, env=clean_environment())
    server.start()
    running.callback(server.stop)
    url = f"http://{LOOPBACK}:{port}"
    server.wait_ready(lambda: answers(url), within=PATIENCE)
    return url
