"""Inputs as people have them: consents, media, layouts.

Every input is made here, and what right looks like was written by hand before the first run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.media_files import coded, pattern, video
from tests.pipeline.video.heif_files import grid
from warehouse.errors import RisoriusError

TODAY = date(2026, 11, 28)

CONSENTS: dict[str, str] = {
    # Plain yes.
    "yes": "permits", "Y": "permits", "TRUE": "permits", "1": "permits", "given": "permits",
    "Consent form signed": "permits", "signed 2024-03-02": "permits",
    "granted on 3 May 2025": "permits", "ja": "permits", "oui": "permits", "sí": "permits",
    "はい": "permits", "да": "permits",
    # A scope and an end.
    "research only": "permits", "yes, research until 2030-12-31": "permits",
    "valid through 2099": "permits", "commercial use only": "limits",
    # Plain no.
    "no": "refuses", "FALSE": "refuses", "0": "refuses", "n": "refuses", "not given": "refuses",
    "declined": "refuses", "opted out": "refuses", "withdrew 2025-01-01": "refuses",
    "pending": "refuses", "unknown": "refuses", "nein": "refuses", "non": "refuses",
    "нет": "refuses", "いいえ": "refuses", "revoked by e-mail": "refuses",
    # Past.
    "until 2020-01-01": "expired", "2020-01-01": "expired", "valid to 2019": "expired",
    # Not understood: refusable, and out.
    "yes until 2024-02-30": "unreadable", "maybe": "unreadable",
    "ok with me I guess": "unreadable", "see folder 12b": "unreadable",
    # An empty cell stays what the setting says.
    "": "unstated",
}  # fmt: skip
"""Statement to verdict for a research release on ``TODAY``."""

_VERDICTS = {
    "consent_withdrawn": "refuses", "consent_unreadable": "unreadable",
    "consent_expired": "expired", "consent_scope": "limits", "consent_ends": "limits",
    "consent_unstated": "unstated",
}  # fmt: skip


def consents() -> dict[str, Any]:
    """Read every wording as a release does."""
    from warehouse.consent import parse

    def verdict(text: str) -> str:
        reason = parse(text).refusal(use="research", today=TODAY, required=True)
        return "permits" if reason is None else _VERDICTS.get(reason, reason)

    return _compare({repr(text): (right, verdict(text)) for text, right in CONSENTS.items()})


@dataclass(frozen=True)
class _Medium:
    """How to write a file, and what reading it gives.

    ``samples`` at 5 per second and ``seconds``; a still has one sample and lasts 0 s.
    ``refusable``:
    a clear refusal is right as well.
    """

    write: Callable[[Path], object]
    samples: int = 10
    seconds: float = 2.0
    size: tuple[int, int] = (160, 120)
    refusable: bool = False


def _frames(n: int = 20) -> list[np.ndarray]:
    return [pattern(index) for index in range(n)]


def _video(codec: str, pix_fmt: str = "yuv420p", **options: str) -> Callable[[Path], object]:
    return lambda path: coded(path, _frames(), codec=codec, pix_fmt=pix_fmt, options=options)


def _still(kind: str, mode: str = "RGB", **options: Any) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        Image.fromarray(pattern(0)).convert(mode).save(path, kind, **options)

    return write


def _animation(kind: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        first, *rest = [Image.fromarray(image) for image in _frames()]
        first.save(path, kind, save_all=True, append_images=rest, duration=100, loop=0)

    return write


def _turned(path: Path) -> None:
    """Write a photograph stored on its side, with its EXIF tag."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pattern(0)).copy()).save(path, "JPEG", exif=exif)


def _sixteen_bit(path: Path) -> None:
    gray = pattern(0)[..., 0].astype(np.uint16) * 257
    Image.fromarray(gray).save(path, "PNG")


def _phone(path: Path) -> None:
    """A picture in tiles, stored on its side, behind its thumbnail."""
    grid(path, np.rot90(pattern(0), -1), turns=1, thumbnail_first=True)


def _cover(path: Path) -> None:
    """An MP4 whose cover picture is a second video stream."""
    cover = BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(cover, "JPEG")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        art = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        art.width = art.height = 64
        art.pix_fmt, art.disposition = "yuvj420p", av.stream.Disposition.attached_pic
        for image in _frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
        packet = av.Packet(cover.getvalue())
        packet.stream, packet.pts, packet.dts = art, 0, 0
        container.mux(packet)


_STILL: dict[str, Any] = {"samples": 1, "seconds": 0.0}
MEDIA: dict[str, _Medium] = {
    "h264.mp4": _Medium(_video("libx264")),
    "h264-b-frames.mp4": _Medium(_video("libx264", bf="3")),
    "h264-b-frames.avi": _Medium(_video("libx264", bf="3")),
    "h264-b-frames.mkv": _Medium(_video("libx264", bf="3")),
    "h264.ts": _Medium(_video("libx264")),
    "h264.flv": _Medium(_video("libx264")),
    "h264-422-10bit.mov": _Medium(_video("libx264", "yuv422p10le")),
    "hevc.mp4": _Medium(_video("libx265")),
    "vp8.webm": _Medium(_video("libvpx")),
    "vp9.webm": _Medium(_video("libvpx-vp9")),
    "av1.mkv": _Medium(_video("libsvtav1", preset="10")),
    "mpeg1.mpg": _Medium(lambda path: coded(
        path, _frames(50), codec="mpeg1video", fps=25, options={"bf": "2"})),
    "mpeg2.mpg": _Medium(lambda path: coded(
        path, _frames(50), codec="mpeg2video", fps=25, options={"bf": "2"})),
    "xvid.avi": _Medium(_video("mpeg4", bf="2")),
    "mjpeg.avi": _Medium(_video("mjpeg", "yuvj420p")),
    "prores.mov": _Medium(_video("prores_ks", "yuv422p10le")),
    "ffv1.mkv": _Medium(_video("ffv1", "yuv444p16le")),
    "wmv2.asf": _Medium(_video("wmv2")),
    "cover.mp4": _Medium(_cover),
    "uneven-times.mkv": _Medium(
        lambda path: video(path, times=[0, 40, 900, 930, 1000, 1800]), samples=4, seconds=1.8),
    "animated.gif": _Medium(_animation("GIF")),
    "animated.webp": _Medium(_animation("WEBP"), refusable=True),
    "photo.jpg": _Medium(_still("JPEG", quality=95), **_STILL),
    "turned.jpg": _Medium(_turned, **_STILL),
    "cmyk.jpg": _Medium(_still("JPEG", "CMYK", quality=95), **_STILL),
    "palette.png": _Medium(_still("PNG", "P"), **_STILL),
    "gray-16-bit.png": _Medium(_sixteen_bit, **_STILL),
    "photo.tif": _Medium(_still("TIFF", compression="tiff_lzw"), **_STILL),
    "phone.heic": _Medium(_phone, **_STILL),
    "photo.avif": _Medium(_still("AVIF", quality=90), **_STILL),
}  # fmt: skip
"""Half of the moving pictures have frames that are stored in another order than shown."""


def media() -> dict[str, Any]:
    """Read every file as ``ingest`` does: times, size, direction."""
    with tempfile.TemporaryDirectory() as folder:
        return _compare({
            name: (_expected(medium), _read(Path(folder) / name, medium))
            for name, medium in MEDIA.items()
        })  # fmt: skip


def _expected(medium: _Medium) -> str:
    width, height = medium.size
    return f"{medium.samples} samples in {medium.seconds:.1f} s, {width} x {height}, upright"


def _read(path: Path, medium: _Medium) -> str:
    from pipeline.video.reader import Outcome, sample

    try:
        medium.write(path)
    except Exception as error:  # an encoder that this machine lacks is not the product's fault
        return f"not written: {type(error).__name__}: {error}"
    outcome = Outcome()
    try:
        frames = list(sample(str(path), fps=5, outcome=outcome))
    except RisoriusError as error:
        clear = medium.refusable and bool(error.hint)
        return _expected(medium) if clear else f"refused: {error.got}"
    images = [frame.image.astype(float) for frame in frames]
    half = medium.size[0] // 2
    # The left half is bright: a picture that was turned or mirrored shows it elsewhere.
    upright = all(
        image[:, : half - 8].mean() > image[:, half + 8 :].mean() + 80 for image in images
    )
    seconds, last = outcome.duration_s or 0.0, frames[-1].time_s
    # The last frame of a video may or may not count to its length.
    if abs(seconds - medium.seconds) <= 0.21 and last <= medium.seconds:
        seconds = medium.seconds
    width, height = frames[0].size
    return (
        f"{len(frames)} samples in {seconds:.1f} s, {width} x {height}, "
        f"{'upright' if upright else 'not upright'}"
    )


@dataclass(frozen=True)
class _Layout:
    """A metadata file and its answers; ``refusable``: an error is right too."""

    name: str
    content: str | bytes
    answers: dict[str, list[str]]
    refusable: bool = False


_TWO = {"a.png": ["happiness"], "b.png": ["anger"]}


def _csv(header: str, *rows: str) -> str:
    return "\n".join([header, *rows]) + "\n"


LAYOUTS: dict[str, _Layout] = {
    "plain": _Layout("metadata.csv", _csv("file_name,label", "a.png,happiness", "b.png,anger"),
                     _TWO),
    "capitals": _Layout("metadata.csv", _csv("File_Name,Label", "a.png,Happiness", "b.png,ANGER"),
                        _TWO),
    "spaces": _Layout("metadata.csv", _csv("file_name, label", "a.png, happiness", "b.png, anger"),
                      _TWO),
    "byte order mark": _Layout(
        "metadata.csv", "\ufefffile_name,label\na.png,happiness\nb.png,anger\n", _TWO),
    "carriage returns": _Layout(
        "metadata.csv", "file_name,label\ra.png,happiness\rb.png,anger\r", _TWO),
    "semicolons, of a spreadsheet": _Layout(
        "metadata.csv", _csv("file_name;label", "a.png;happiness", "b.png;anger"), _TWO),
    "tabs": _Layout(
        "metadata.csv", _csv("file_name\tlabel", "a.png\thappiness", "b.png\tanger"), _TWO),
    "UTF-16, of a spreadsheet": _Layout(
        "metadata.csv", "file_name\tlabel\na.png\thappiness\nb.png\tanger\n".encode("utf-16"),
        _TWO, refusable=True),
    "index column of pandas": _Layout(
        "metadata.csv", _csv(",file_name,label", "0,a.png,happiness", "1,b.png,anger"), _TWO),
    "path and emotion": _Layout(
        "metadata.csv", _csv("path,emotion", "a.png,happy", "b.png,angry"), _TWO),
    "filename and expression": _Layout(
        "metadata.csv", _csv("filename,expression", "a.png,happy", "b.png,angry"), _TWO),
    "image and class": _Layout(
        "metadata.csv", _csv("image,class", "a.png,Happy", "b.png,Angry"), _TWO),
    "annotators": _Layout(
        "metadata.csv", _csv("file_name,annotator,emotion", "a.png,r1,happy", "a.png,r2,fear",
                             "b.png,r1,angry", "b.png,r2,angry"),
        {"a.png": ["fear", "happiness"], "b.png": ["anger", "anger"]}),
    "licence in American": _Layout(
        "metadata.csv", _csv("file_name,label,license,subject", "a.png,happy,CC0,s1",
                             "b.png,angry,CC0,s2"), _TWO),
    "Windows paths": _Layout(
        "metadata.csv", _csv("file_name,label", ".\\a.png,happiness", "b.PNG,anger"), _TWO),
    "folders in names": _Layout(
        "metadata.csv", _csv("file_name,label", "./a.png,happiness", "./b.png,anger"), _TWO),
    "image folder of datasets": _Layout(
        "metadata.jsonl", '{"file_name": "a.png", "label": "happiness"}\n'
                          '{"file_name": "b.png", "label": "anger"}\n', _TWO),
    "JSON Lines with U+2028": _Layout(
        "metadata.jsonl", '{"file_name": "a.png", "label": "happiness", "note": "x\u2028y"}\n'
                          '{"file_name": "b.png", "label": "anger"}\n', _TWO),
    "counts of votes": _Layout(
        "metadata.jsonl", '{"file_name": "a.png", "votes": {"happiness": 2, "fear": 1}}\n'
                          '{"file_name": "b.png", "votes": {"anger": 3}}\n',
        {"a.png": ["fear", "happiness", "happiness"], "b.png": ["anger", "anger", "anger"]}),
    "AffectNet's words": _Layout(
        "metadata.csv", _csv("file_name,label", "a.png,None", "b.png,No-Face"),
        {"a.png": ["unknown"], "b.png": ["not_a_face"]}),
    "asked twice": _Layout(
        "metadata.csv", _csv("file_name,rater_id,label,created_at",
                             "a.png,r1,happiness,2024-01-01T10:00:00",
                             "a.png,r1,sadness,2024-03-01T10:00:00",
                             "b.png,r1,anger,2024-01-01T10:00:00"),
        {"a.png": ["happiness", "sadness"], "b.png": ["anger"]}),
    "FER2013's table of pixels": _Layout(
        "metadata.csv", _csv("emotion, Usage, pixels", "3,Training,70 80 82", "0,Training,1 2 3"),
        {}, refusable=True),
    "FER+'s table of counts": _Layout(
        "metadata.csv", _csv("Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,"
                             "fear,contempt,unknown,NF", "Training,a.png,0,10,0,0,0,0,0,0,0,0",
                             "Training,b.png,0,0,0,0,10,0,0,0,0,0"), {}, refusable=True),
    "RAF-DB's numbers": _Layout(
        "metadata.csv", _csv("file_name,label", "a.png,4", "b.png,6"), {}, refusable=True),
    "no column of answers": _Layout(
        "metadata.csv", _csv("file_name,mood", "a.png,good", "b.png,bad"), {}, refusable=True),
}  # fmt: skip
"""25 tables as spreadsheets, libraries and published datasets write them, about two pictures."""


def layouts() -> dict[str, Any]:
    """Read every table as ``import`` does."""
    return _compare({name: _layout(layout) for name, layout in LAYOUTS.items()})


def _layout(layout: _Layout) -> tuple[str, str]:
    from pipeline.ingest import metadata

    right = "refused" if not layout.answers else json.dumps(layout.answers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for picture in ("a.png", "b.png"):
            Image.fromarray(pattern(0)).save(folder / picture)
        content = layout.content
        data = content if isinstance(content, bytes) else content.encode()
        (folder / layout.name).write_bytes(data)
        try:
            found = metadata.read(folder)
        except RisoriusError as error:
            return ("refused", "refused") if layout.refusable else (right, f"refused: {error}")
    answers: dict[str, list[str]] = {}
    for vote in found.votes:
        answers.setdefault(vote.file_name, []).append("+".join(vote.answers))
    given = {file: sorted(words) for file, words in sorted(answers.items())}
    return right, json.dumps(given)


def _compare(cases: dict[str, tuple[str, str]]) -> dict[str, Any]:
    wrong = {
        name: {"expected": right, "got": got}
        for name, (right, got) in cases.items()
        if right != got
    }
    return {"cases": len(cases), "right": len(cases) - len(wrong), "wrong": wrong}
