"""How much reading images may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osml_tasks.config import AsyncEndpointConfig


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process that reads images is held to.

    :ivar block_bytes: the largest block of pixels that is decoded.
    :ivar memory_bytes: of the process.
    :ivar seconds: of CPU for a tile; twice that may pass by the clock.
    """

    block_bytes: int = 134_217_728
    memory_bytes: int = 805_306_368
    seconds: float = 30.0

    @classmethod
    def by(cls, config: AsyncEndpointConfig) -> Limits:
        """What a configuration says."""
        return cls(config.max_block_bytes, config.max_image_memory_bytes, config.max_cut_seconds)
