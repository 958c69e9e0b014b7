"""Files that claim to be huge, or to be a list of other files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.ingest import manifest
from tests.media_files import video


def png_of(width: int, height: int) -> bytes:
    """Return a valid black gray PNG, a thousandth of its decoded size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer, row = zlib.compressobj(1), b"\0" * (width + 1)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def long_film(path: Path) -> None:
    """Write a video of ten frames whose headers claim days of length."""
    data = bytearray(video(path, frames=10).read_bytes())
    entry = data.index(b"stts") + 4 + 8
    data[entry + 4 : entry + 8] = struct.pack(">I", 0x07FFFFFF)
    # Where each box keeps its duration, behind its name.
    for box, at in ((b"mvhd", 16), (b"mdhd", 16), (b"tkhd", 20), (b"elst", 8)):
        where = data.index(box) + 4 + at
        data[where : where + 4] = struct.pack(">I", 0x7FFFFFF0)
    path.write_bytes(data)


CLAIMS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "pixels": ("huge.png", lambda path: path.write_bytes(png_of(12_000, 10_000)), "too_large"),
    "more pixels": ("more.png", lambda path: path.write_bytes(png_of(20_000, 20_000)), "decode"),
    "one side": ("wide.png", lambda path: path.write_bytes(png_of(1_200_000, 100)), "decode"),
    "duration": ("long.mp4", long_film, "too_long"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_limits__refused_before_decoding(claim: str, tmp_path: Path) -> None:
    name, make, code = CLAIMS[claim]
    make(tmp_path / name)
    row = manifest.describe(manifest.Source(name, uri=str(tmp_path / name)), batch="day")
    assert row["verdict"] == "failed"
    assert row["reason"].startswith(code), row["reason"]


LISTS = {
    "list.m3u8": "#EXTM3U\n#EXTINF:1,\n{good}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile '{good}'\n",
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "list.mpd": "<MPD><Period><BaseURL>{good}</BaseURL></Period></MPD>",
    "good%d.mp4": "not a numbered sequence",
}


@pytest.mark.parametrize("name", LISTS)
def test_playlist__opens_nothing(name: str, tmp_path: Path) -> None:
    good = video(tmp_path / "good1.mp4")
    (tmp_path / name).write_text(LISTS[name].format(good=good))
    row = manifest.describe(manifest.Source(name, uri=str(tmp_path / name)), batch="day")
    assert row["verdict"] == "failed", row
    assert row["duration_s"] is None
