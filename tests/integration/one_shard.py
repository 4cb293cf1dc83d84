"""A Valkey server in cluster mode that has all slots."""

from __future__ import annotations

import redis

from osml_tasks.local.broker import Broker
from osml_tasks.local.server import free_port
from tests.integration.fleet import wait_until

SLOTS = 16384


class OneShard(Broker):
    """A cluster of one shard; a context manager."""

    def options(self) -> dict[str, str]:
        """See :class:`~osml_tasks.local.broker.Broker`."""
        return super().options() | {"cluster-enabled": "yes", "cluster-port": str(free_port())}

    def wait_ready(self) -> None:
        """Wait until it answers for every slot."""
        super().wait_ready()
        with redis.Redis.from_url(self.url, decode_responses=True) as server:
            server.execute_command("CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)
            wait_until(lambda: server.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
