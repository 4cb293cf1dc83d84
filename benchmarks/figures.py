"""What one run has cost."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.client import ClientRun
from benchmarks.processes import WorkerPeaks


@dataclass(frozen=True, slots=True)
class Served:
    """What an endpoint says of one run; times in s since the epoch.

    :ivar busy: slot time used, s.
    """

    invocations: int
    slots: int
    busy: float
    first_accepted: float
    last_finished: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of one way over so many tiles. Workers' start and warm-up are not in it.

    :ivar worker_cpu: CPU seconds of all workers together.
    :ivar server_cpu: the same of endpoint, S3 server and broker: the work itself, not the way.
    :ivar s3_requests: of client and workers; those of the endpoint itself are left out.
    :ivar control_requests: questions to SageMaker's control plane.
    :ivar broker_peak: the most that the broker's memory rose over the run, bytes.
    """

    tiles: int
    client: ClientRun
    peaks: WorkerPeaks
    served: Served
    worker_cpu: float
    server_cpu: float
    s3_requests: int
    control_requests: int
    broker_peak: int

    @property
    def tiles_per_second(self) -> float:
        """Over the client's whole life, its imports, result and cleanup included."""
        return self.tiles / self.client.wall

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds a tile of client and all workers."""
        return 1000 * (self.client.cpu + self.worker_cpu) / self.tiles

    @property
    def client_cpu_ms(self) -> float:
        """CPU milliseconds a tile of the client."""
        return 1000 * self.client.cpu / self.tiles

    @property
    def server_cpu_ms(self) -> float:
        """CPU milliseconds a tile of endpoint, S3 server and broker."""
        return 1000 * self.server_cpu / self.tiles

    @property
    def requests(self) -> float:
        """AWS requests a tile: to S3, invocations, and to the control plane."""
        return (self.s3_requests + self.served.invocations + self.control_requests) / self.tiles

    @property
    def slots_busy(self) -> float:
        """Share of the slots' time used, from the client's start to the last output."""
        return self.served.busy / (self.served.slots * (self.served.last_finished - self.client.started))

    @property
    def tail(self) -> float:
        """Seconds from the last output to the client's end."""
        return self.client.started + self.client.wall - self.served.last_finished

    @property
    def served_per_second(self) -> float:
        """Tiles a second from the first accepted invocation to the last output."""
        return self.tiles / (self.served.last_finished - self.served.first_accepted)
