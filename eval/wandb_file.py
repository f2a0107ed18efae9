"""Whether the file of an offline W&B run is whole.

On a full disk the client (0.31) writes as much as fits and reports success, so its file is looked at. It is a LevelDB
log after 7 bytes of its own: blocks of 32 KiB that hold chunks (CRC-32, length, kind), one or more for each record,
which is a protobuf message. https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

_BLOCK, _FILE_HEADER, _CHUNK_HEADER = 32 * 2**10, 7, 7
_WHOLE, _LAST = 1, 4  # kinds of chunk that end a record
_EXIT = 18  # the field of W&B's Record that says that the run has ended


def is_whole(path: Path) -> bool:
    """Whether the file can be read to its end and ends with the record that ends a run."""
    try:
        *_, last = _records(path.read_bytes())
        return _EXIT in set(_fields(last))
    except (OSError, ValueError, IndexError, struct.error):
        return False


def _records(content: bytes) -> Iterator[bytes]:
    """Raises ValueError or struct.error for a file that stops within a record."""
    at, record = _FILE_HEADER, b""
    while at < len(content):
        left = _BLOCK - at % _BLOCK
        if left < _CHUNK_HEADER:  # too little for a chunk: padding
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        at += _CHUNK_HEADER + length
        if at > len(content):
            raise ValueError("cut short")
        record += content[at - length : at]
        if kind in (_WHOLE, _LAST):
            yield record
            record = b""
    if record:
        raise ValueError("cut short")


def _fields(message: bytes) -> Iterator[int]:
    """Numbers of the fields of a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        match tag & 7:
            case 0:  # a number
                _, at = _varint(message, at)
            case 1:
                at += 8
            case 2:  # bytes with their length
                length, at = _varint(message, at)
                at += length
            case 5:
                at += 4
            case kind:
                raise ValueError(f"wire type {kind}")
        yield tag >> 3


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, seven bits a byte, the lowest first; and where it ends."""
    value = shift = 0
    while True:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not message[at - 1] & 0x80:
            return value, at
