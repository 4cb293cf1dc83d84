"""An object that is being written, piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from osml_tasks.s3_errors import file_errors

if TYPE_CHECKING:
    from obstore import WritableFile

    from osml_tasks.s3_uri import S3Uri

MULTIPART_BYTES = 16 * 1024 * 1024
"""Up to this size an object is written by one request, which can be made again; above it in parts, B."""


class ObjectWriter:
    """Kept together while it is small, sent in parts once it is not.

    :param open_file: begins an upload in parts.
    :raises S3OperationError: S3 refuses, or does not answer.
    """

    def __init__(self, uri: S3Uri, open_file: Callable[[], WritableFile]) -> None:
        self._uri = uri
        self._open_file = open_file
        self._file: WritableFile | None = None
        self._head = bytearray()

    @property
    def is_in_parts(self) -> bool:
        """Whether an upload in parts has begun."""
        return self._file is not None

    def write(self, data: bytes) -> None:
        """Write some more of it."""
        if self._file is None:
            self._head += data
            if len(self._head) <= MULTIPART_BYTES:
                return
            self._file = self._open_file()
            data, self._head = bytes(self._head), bytearray()
        with file_errors("PUT", self._uri):
            self._file.write(data)

    def finish(self, put: Callable[[bytes], None]) -> None:
        """Have it appear.

        :param put: writes what was small to the end.
        """
        if self._file is None:
            put(bytes(self._head))
        else:
            with file_errors("PUT", self._uri):
                self._file.close()
