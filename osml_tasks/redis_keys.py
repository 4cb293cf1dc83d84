"""How every key and channel begins that a fleet has in Redis, Celery's own included."""

from __future__ import annotations

PREFIX = "{osml}:"
"""With a hash tag: a server in cluster mode has all of it in one slot, as scripts and transactions here need it."""
