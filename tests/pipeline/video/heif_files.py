"""HEIC pictures in tiles, as phones store them, coded on the spot."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np


def grid(
    path: Path,
    image: np.ndarray,
    *,
    tile: int = 64,
    turns: int = 0,
    mirrored: bool = False,
    thumbnail_first: bool = False,
    transfer: int | None = None,
) -> Path:
    """Write an image as a grid of square tiles.

    Args:
        turns: counter-clockwise quarter turns that a reader must apply.
        mirrored: a reader must swap left and right, before turning.
        thumbnail_first: store a small black picture as the first item.
        transfer: number of the transfer function that the file names.
    """
    height, width = image.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    canvas = np.zeros((rows * tile, columns * tile, 3), np.uint8)
    canvas[:height, :width] = image
    tiles = [
        canvas[y : y + tile, x : x + tile]
        for y in range(0, rows * tile, tile)
        for x in range(0, columns * tile, tile)
    ]
    first = [np.zeros((tile, tile, 3), np.uint8)] if thumbnail_first else []
    coded = [_hevc(one) for one in (*first, *tiles)]
    n, primary = len(coded), len(coded) + 1
    shown = list(range(len(first) + 1, n + 1))

    infos = [struct.pack(">HH4sx", number, 0, b"hvc1") for number in range(1, n + 1)]
    infos.append(struct.pack(">HH4sx", primary, 0, b"grid"))
    properties = [
        _box(b"hvcC", coded[0][0]),
        _full(b"ispe", struct.pack(">II", tile, tile)),
        _full(b"ispe", struct.pack(">II", width, height)),
    ]
    of_grid = [3]
    if transfer is not None:
        properties.append(_box(b"colr", b"nclx" + struct.pack(">HHHB", 9, transfer, 6, 0)))
        of_grid.append(len(properties))
    if mirrored:
        properties.append(_box(b"imir", bytes([1])))
        of_grid.append(len(properties))
    if turns:
        properties.append(_box(b"irot", bytes([turns])))
        of_grid.append(len(properties))
    links = b"".join(struct.pack(">HBBB", number, 2, 0x81, 2) for number in range(1, n + 1))
    links += struct.pack(">HB", primary, len(of_grid)) + bytes(of_grid)
    layout = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    references = struct.pack(">HH", primary, len(shown)) + struct.pack(f">{len(shown)}H", *shown)

    def meta(base: int) -> bytes:
        places, at = b"", base
        for number, (_, data) in enumerate(coded, start=1):
            places += struct.pack(">HHHHII", number, 0, 0, 1, at, len(data))
            at += len(data)
        places += struct.pack(">HHHHII", primary, 1, 0, 1, 0, len(layout))
        return _full(
            b"meta",
            _full(b"hdlr", struct.pack(">I4s12xx", 0, b"pict")),
            _full(b"pitm", struct.pack(">H", primary)),
            _full(b"iloc", struct.pack(">BBH", 0x44, 0, n + 1), places, version=1),
            _full(
                b"iinf",
                struct.pack(">H", n + 1),
                *(_full(b"infe", info, version=2) for info in infos),
            ),
            _full(b"iref", _box(b"dimg", references)),
            _box(
                b"iprp",
                _box(b"ipco", *properties),
                _full(b"ipma", struct.pack(">I", n + 1), links),
            ),
            _box(b"idat", layout),
        )

    head = _box(b"ftyp", struct.pack(">4sI4s4s", b"heic", 0, b"mif1", b"heic"))
    base = len(head) + len(meta(0)) + 8
    path.write_bytes(head + meta(base) + _box(b"mdat", *(data for _, data in coded)))
    return path


def _hevc(image: np.ndarray) -> tuple[bytes, bytes]:
    """Return the decoder configuration and the only packet of an image."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=1)
        stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "yuv420p"
        stream.codec_context.codec_tag = "hvc1"
        stream.options = {"x265-params": "log-level=none:crf=10:keyint=1"}
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    data = file.getvalue()
    at = data.index(b"hvcC") - 4
    configuration = data[at + 8 : at + int.from_bytes(data[at : at + 4], "big")]
    at = data.index(b"mdat") - 4
    return configuration, data[at + 8 : at + int.from_bytes(data[at : at + 4], "big")]


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def _full(name: bytes, *parts: bytes, version: int = 0) -> bytes:
    return _box(name, struct.pack(">I", version << 24), *parts)
