"""Find what is missing of a video: its end, or packets of its index."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from pipeline.video.container import BARE

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_MEASURED = {"mpegts", "mpeg", *BARE}
"""Containers without a length: FFmpeg estimates it from the bytes that are there."""

_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_EBML_SEGMENT, _EBML_CLUSTER = 0x18538067, 0x1F43B675


def ends_early(
    container: InputContainer,
    stream: VideoStream,
    *,
    path: str | None,
    end_s: float,
    length_s: float,
) -> bool:
    """Return whether the file ends before the stream that was read.

    A container's length may be about something else than its frames: AVI counts frames that were
    dropped on purpose, MP4 counts samples that an edit list hides. So the layout of the bytes
    decides where it can, and the length elsewhere.

    Args:
        path: of the file; without one only the lengths are compared.
        end_s: end of the last packet of any stream.
        length_s: what the container claims.
    """
    name = container.format.name
    short = length_s > 0 and end_s < length_s - max(0.5, 0.05 * length_s)
    if name in _MEASURED:
        return False
    if path is None:
        return short
    with open(path, "rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        if "mp4" in name:
            # A fragmented file has no sample counts in its header.
            missing = any(one.pos + one.size > size for one in stream.index_entries)
            return missing or (short and not stream.frames)
        if name == "avi":
            return _avi_is_cut(handle, size)
        if "matroska" in name:
            return short or _matroska_is_cut(handle, size)
        if name == "asf":
            return short or _asf_is_cut(handle, size)
    return short


def lost_packets(container: InputContainer, stream: VideoStream, *, found: int) -> int:
    """Return how many packets an AVI file's index lists that were not found.

    FFmpeg passes over damaged parts of AVI without an error. An empty entry of the index is a
    frame dropped on purpose.
    """
    if container.format.name != "avi":
        return 0
    return max(0, sum(entry.size > 0 for entry in stream.index_entries) - found)


def _avi_is_cut(handle: BinaryIO, size: int) -> bool:
    """Return whether an AVI file ends inside its list of frames.

    A recorder that was stopped by force leaves sizes of 0, which claim nothing.
    """
    position = 0
    while (head := _at(handle, position, 12))[:4] == b"RIFF":
        end = position + 8 + int.from_bytes(head[4:8], "little")
        inner = position + 12
        while inner < min(end, size) and len(chunk := _at(handle, inner, 12)) == 12:
            following = inner + 8 + int.from_bytes(chunk[4:8], "little")
            if chunk[:4] == b"LIST" and chunk[8:] == b"movi" and following > size:
                return True
            inner = following + following % 2
        if end <= position + 8:
            return False
        position = end + end % 2
    return False


def _matroska_is_cut(handle: BinaryIO, size: int) -> bool:
    """Return whether a Matroska or WebM file ends inside a cluster of frames."""
    position = 0
    while position < size:
        head = _at(handle, position, 12)
        ident, used = _vint(head, marker=True)
        length, more = _vint(head[used:], marker=False)
        if not used or not more:
            return False
        unknown = length == (1 << (7 * more)) - 1
        position += used + more
        if ident == _EBML_SEGMENT:
            continue
        if unknown:
            # A live recording: its parts end where the next begins, so nothing is claimed.
            return False
        if ident == _EBML_CLUSTER and position + length > size:
            return True
        position += length
    return False


def _asf_is_cut(handle: BinaryIO, size: int) -> bool:
    """Return whether a WMV file is smaller than its header says."""
    head = _at(handle, 0, 1 << 16)
    at = head.find(_ASF_PROPERTIES)
    # Object id, object size, file id, file size.
    return at >= 0 and int.from_bytes(head[at + 40 : at + 48], "little") > size


def _vint(data: bytes, *, marker: bool) -> tuple[int, int]:
    """Return value and size of an EBML integer; size 0 if it is none."""
    if not data or not data[0]:
        return 0, 0
    size = 9 - data[0].bit_length()
    if len(data) < size:
        return 0, 0
    value = int.from_bytes(data[:size], "big")
    return (value if marker else value & ((1 << (7 * size)) - 1)), size


def _at(handle: BinaryIO, position: int, size: int) -> bytes:
    handle.seek(position)
    return handle.read(size)
