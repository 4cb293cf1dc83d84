"""What botocore knows of AWS, read in a fifth of the time.

A client of boto3 is made from JSON: all calls of its service, the rules for its endpoints, the regions.
botocore reads that with the slowest of parsers, and looks into 400 directories first.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import botocore.session
import orjson
from botocore.loaders import JSONFileLoader, Loader

_ENDINGS: dict[str, Callable[[bytes], bytes]] = {".json": bytes, ".json.gz": gzip.decompress}


class _JsonFiles(JSONFileLoader):
    """Reads a file of JSON, compressed or not."""

    def load_file(self, file_path: str) -> Any:
        """What is in a file, named without its ending; None if there is none."""
        for ending, content in _ENDINGS.items():
            with suppress(FileNotFoundError):
                return orjson.loads(content(Path(file_path + ending).read_bytes()))
        return None


class _ServiceData(Loader):
    """botocore's own data, and what lies in the directories of ``AWS_DATA_PATH``."""

    FILE_LOADER_CLASS = _JsonFiles

    def list_available_services(self, type_name: str) -> list[str]:
        """The services that there are any data of; what is missing shows when it is loaded."""
        return self._services

    @cached_property
    def _services(self) -> list[str]:
        paths = [path for path in self.search_paths if Path(path).is_dir()]
        return sorted({entry.name for path in paths for entry in os.scandir(path) if entry.is_dir()})


def core_session() -> botocore.session.Session:
    """A session for a session of boto3 to be made of, which is what boto3 would make by itself, but for the time."""
    core = botocore.session.get_session()
    paths = list(core.get_component("data_loader").search_paths)
    core.register_component("data_loader", _ServiceData(extra_search_paths=paths, include_default_search_paths=False))
    return core
