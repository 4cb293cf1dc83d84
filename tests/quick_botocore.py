"""botocore reads its models, megabytes of JSON, anew in each session; here all of a process share what was read."""

from __future__ import annotations

from typing import Any

from botocore import loaders, session


def share_models() -> None:
    """Have every session from now on take from one cache what it would read from the same files."""
    caches: dict[str | None, dict[Any, Any]] = {}

    def create_loader(search_path: str | None = None) -> loaders.Loader:
        loader = loaders.create_loader(search_path)
        loader._cache = caches.setdefault(search_path, {})  # type: ignore[attr-defined]
        return loader

    session.create_loader = create_loader  # type: ignore[attr-defined]
