"""Any container FFmpeg reads as upright RGB pictures with their true times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from warehouse.errors import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

MAX_PIXELS = 100_000_000
"""One frame of more is refused: decoded it would take 300 MB."""

MIN_SIDE = 16
"""A picture smaller than this cannot hold a face anybody could read."""

_STILL_CODECS = {"mjpeg", "png", "webp", "bmp", "tiff", "jpegls", "jpeg2000"}
_EXIF_TURNS = {3: 2, 6: 3, 8: 1}
"""EXIF orientation to counter-clockwise quarter turns; mirrored ones are not written by cameras."""


@dataclass(frozen=True)
class VideoFacts:
    """What a container says of its first video stream; sides are those of the upright picture."""

    duration_s: float
    fps: float | None
    width: int
    height: int
    rotation: int
    codec: str
    has_audio: bool


@dataclass(frozen=True)
class Frame:
    """One sampled picture.

    Attributes:
        index: number of the frame in the decoded video, from 0.
        time_s: its presentation time, from the start of the stream.
        image: uint8[h, w, 3], RGB, upright.
    """

    index: int
    time_s: float
    image: np.ndarray


def probe(path: str) -> VideoFacts:
    """Facts about a file, after decoding its first picture.

    Raises:
        MediaError: with ``got`` = ``code: sentence``; codes are ``not_media``,
            ``no_video_stream``, ``truncated``, ``decode_error``, ``too_small``, ``too_large``.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        _check_size(stream.codec_context.width, stream.codec_context.height)
        first = next(container.decode(stream), None)
        if first is None:
            raise MediaError(
                "a picture in the video stream",
                got="decode_error: no picture could be decoded",
                mend="export the file again",
            )
        _check_size(first.width, first.height)
        image, turns = _upright(first, path, still=_is_still(container))
        still = _is_still(container)
        length = container.duration / 1_000_000 if container.duration else 0.0
        rate = stream.average_rate or stream.guessed_rate
        return VideoFacts(
            duration_s=0.0 if still else float(length),
            fps=None if still or not rate else float(rate),
            width=image.shape[1],
            height=image.shape[0],
            rotation=(360 - 90 * turns) % 360,
            codec=stream.codec_context.name,
            has_audio=bool(container.streams.audio),
        )


def sample(path: str, *, fps: float = 5.0) -> Iterator[Frame]:
    """Frames at or after each tick of ``1 / fps`` seconds, with the times they really have.

    One frame is held at a time, whatever the length. A still image is one frame at 0 s.

    Raises:
        MediaError: as ``probe``; also midway, when the rest cannot be decoded (``truncated``).
    """
    import av

    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        still = _is_still(container)
        start: float | None = None
        due, index = 0.0, -1
        try:
            for frame in container.decode(stream):
                index += 1
                moment = frame.time if frame.time is not None else index / fps
                start = moment if start is None else start
                # A hair early still counts: time stamps are rounded to the stream's clock.
                if moment - start < due - 1e-4:
                    continue
                _check_size(frame.width, frame.height)
                image, _ = _upright(frame, path, still=still)
                yield Frame(index=index, time_s=float(moment - start), image=image)
                due = (np.floor((moment - start) * fps + 1e-3) + 1) / fps
                if still:
                    return
        except av.FFmpegError as error:
            raise MediaError(
                "a video that decodes to its end",
                got=f"truncated: decoding stopped after frame {index} ({error.strerror})",
                mend="copy the file again; what came before was used",
            ) from None


@contextmanager
def _opened(path: str) -> Iterator[InputContainer]:
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
        container = av.open(path, metadata_errors="ignore")
    except av.FFmpegError as error:
        raise _refused(path, error) from None
    except (OSError, ValueError) as error:
        raise MediaError(
            "a readable file", got=f"unreadable: {error}", mend="check the file"
        ) from None
    with container:
        if not container.streams.video:
            raise MediaError(
                "a video or an image",
                got="no_video_stream: there is sound or data, but no picture",
                mend="leave it out, or export it with its picture",
            )
        try:
            yield container
        except av.FFmpegError as error:
            raise MediaError(
                "a stream FFmpeg decodes",
                got=f"decode_error: {error.strerror}",
                mend="export the file again",
            ) from None


def _refused(path: str, error: Exception) -> MediaError:
    with open(path, "rb") as handle:
        head = handle.read(64)
    if b"ftyp" in head[:16]:
        return MediaError(
            "a whole MP4 or MOV file",
            got="truncated: the file ends before its index",
            mend="copy it again from the camera",
        )
    said = getattr(error, "strerror", None) or str(error)
    return MediaError(
        "a video or an image FFmpeg knows",
        got=f"not_media: FFmpeg finds no video or image in it ({said})",
        mend="check that the file is what its name says",
    )


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"at most {MAX_PIXELS // 1_000_000} million pixels",
            got=f"too_large: {width} x {height} px",
            mend="scale it down first",
        )
    if width and height and min(width, height) < MIN_SIDE:
        raise MediaError(
            f"sides of at least {MIN_SIDE} px",
            got=f"too_small: {width} x {height} px, no face fits in",
            mend="use the original picture",
        )


def _is_still(container: InputContainer) -> bool:
    stream = container.streams.video[0]
    named = container.format.name
    by_format = named == "image2" or named.endswith("_pipe")
    return by_format and stream.codec_context.name in _STILL_CODECS


def _upright(frame: VideoFrame, path: str, *, still: bool) -> tuple[np.ndarray, int]:
    """The picture as RGB and how many counter-clockwise quarter turns it took."""
    image = frame.to_ndarray(format="rgb24")
    turns = round((frame.rotation or 0) / 90) % 4
    if not turns and still:
        turns = _EXIF_TURNS.get(_exif_orientation(path), 0)
    if turns:
        image = np.rot90(image, turns)
    return np.ascontiguousarray(image), turns


def _exif_orientation(path: str) -> int:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return int(picture.getexif().get(0x0112, 1))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return 1
