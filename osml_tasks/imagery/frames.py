"""How two processes talk of images: a header as JSON and a body of bytes, each behind its length."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import orjson

_LENGTHS = struct.Struct("<IQ")

Frame = tuple[dict[str, Any], bytes]


def pack(header: dict[str, Any], body: bytes = b"") -> list[bytes]:
    """What goes over a pipe, in pieces."""
    text = orjson.dumps(header)
    return [_LENGTHS.pack(len(text), len(body)) + text, body]


def unpack(read: Callable[[int], bytes]) -> Frame:
    """Read it back.

    :param read: gives exactly so many bytes, or raises EOFError.
    :raises EOFError: there is no more.
    """
    text, body = _LENGTHS.unpack(read(_LENGTHS.size))
    header: dict[str, Any] = orjson.loads(read(text))
    return header, read(body)
