"""Open media files and explain why one cannot be opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.video import heif
from warehouse.errors import MediaError

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

MAX_PIXELS = 100_000_000
"""Refuse larger frames; decoded, one would take 300 MB."""

MAX_DURATION_S = 24 * 3600
"""Refuse files that claim to last longer; they would block their batch for hours."""

BARE = {"h264", "hevc", "obu", "m4v", "mjpeg", "mpegvideo", "vc1"}
"""Demuxers of streams without a container, and so without times."""

MIN_SIDE = 16
"""Refuse smaller frames; no readable face fits in."""


@contextmanager
def open_container(path: str, *, hwaccel: HWAccel | None = None) -> Iterator[InputContainer]:
    """Open a media file; FFmpeg errors inside the block become MediaErrors.

    Args:
        hwaccel: decode on this device where it supports the codec.

    Raises:
        MediaError: with ``got`` = ``code: sentence``.
    """
    import av

    # None, not PANIC: any level routes FFmpeg's own threads through Python's lock, where closing
    # a decoder waits for a thread that waits for the interpreter. Observed as a deadlock.
    av.logging.set_level(None)
    try:
        handle = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise MediaError(
            "The file cannot be read", got=f"unreadable: {error.strerror}", hint="check the file"
        ) from None
    with handle:
        try:
            # Without a name FFmpeg goes by content and opens no other file. With one it would
            # take ``%03d`` for a numbered sequence and follow the paths in a playlist.
            unnamed: Any = _UnnamedFile(handle)
            container = av.open(unnamed, metadata_errors="ignore", hwaccel=hwaccel)
        except (av.FFmpegError, ValueError) as error:
            raise _open_error(handle, error) from None
        if container.format.name == "webp_pipe" and _is_animated_webp(handle):
            container.close()
            raise MediaError(
                "The image cannot be decoded",
                got="not_media: an animated WebP, which FFmpeg does not decode",
                hint="export it as MP4 or GIF",
            )
        with container:
            try:
                yield container
            except av.FFmpegError as error:
                raise decode_error(error.strerror or str(error)) from None


def video_stream(container: InputContainer) -> VideoStream:
    """Return the video stream that a player would show.

    Moving pictures come before thumbnails and still images, then the stream marked as default,
    then the largest, then the one with the most frames. A cover image is no video.

    Raises:
        MediaError: there is none (``no_video_stream``), or its size is out of bounds.
    """
    candidates = _candidates(container)
    if not candidates:
        raise MediaError(
            "The file has no video",
            got="no_video_stream: it has sound or data, but no video stream",
            hint="remove it, or export it with its video",
        )
    stream = max(candidates, key=_rank)
    if stream.codec_context is None:
        raise decode_error("FFmpeg has no decoder for its codec")
    check_duration((container.duration or 0) / 1_000_000)
    check_size(stream.codec_context.width, stream.codec_context.height)
    if is_still(container) and stream.codec_context.name == "mjpeg":
        # Otherwise half a JPEG decodes without an error, with a green rest. Other formats fail by
        # themselves, and some refuse intact images with this option.
        stream.codec_context.options = {"err_detect": "explode"}
    return stream


def stream_note(container: InputContainer) -> str | None:
    """Return a remark if nothing tells the video stream from another one."""
    ranks = sorted((_rank(stream) for stream in _candidates(container)), reverse=True)
    equal = ranks.count(ranks[0]) if ranks else 0
    if equal < 2:
        return None
    return f"equal_streams: {equal} video streams are alike, the first was read; check it"


def frame_rate(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the mean frames per second; None if the file does not say."""
    # Bare streams have no clock: FFmpeg assumes 25 per second, their own header may say better.
    coded = stream.codec_context.framerate if container.format.name in BARE else None
    rate = coded or stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


def own_duration_s(container: InputContainer) -> float | None:
    """Return the claimed length of picture and sound; None if unknown.

    A container's length is that of its longest stream, which may be one that is not read.
    """
    total = container.duration / 1_000_000 if container.duration else None
    stream = video_stream(container)
    read = [stream, *container.streams.audio]
    others = [
        one
        for one in container.streams
        if one not in read and one.type in ("video", "subtitle", "data")
        and not _is_cover(one)
    ]  # fmt: skip
    if total is None or not others:
        return total
    lengths = [_claimed_s(one) for one in read]
    known = [length for length in lengths if length]
    return min(total, max(known)) if len(known) == len(lengths) else None


def _candidates(container: InputContainer) -> list[VideoStream]:
    return [stream for stream in container.streams.video if not _is_cover(stream)]


def _is_cover(stream: Stream) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _rank(stream: VideoStream) -> tuple[bool | int, ...]:
    from av.stream import Disposition

    still = Disposition.timed_thumbnails | Disposition.still_image
    part = Disposition.dependent
    context = stream.codec_context
    return (
        context is not None,
        # Matroska and transport streams do not count their frames.
        not stream.disposition & still and stream.frames != 1,
        not stream.disposition & part,
        bool(stream.disposition & Disposition.default),
        context.width * context.height if context is not None else 0,
        stream.frames,
        # An alpha or depth plane has the size and length of its picture.
        context is None or not (context.pix_fmt or "").startswith("gray"),
    )


def _claimed_s(stream: Stream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska's statistics tag, "00:00:04.004000000".
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def is_still(container: InputContainer) -> bool:
    """Return whether the file is one image; an animation is a video."""
    return container.format.name.endswith("_pipe")


def decode_error(detail: str) -> MediaError:
    """Return the error for a stream that cannot be decoded."""
    return MediaError(
        "The video stream cannot be decoded",
        got=f"decode_error: {detail}",
        hint="copy or export it again",
    )


def check_duration(seconds: float) -> None:
    """Raise a MediaError for videos that claim to last longer than a day."""
    if seconds > MAX_DURATION_S:
        raise MediaError(
            f"The video is longer than {MAX_DURATION_S // 3600} hours",
            got=f"too_long: its header says {seconds / 3600:.0f} hours",
            hint="split it, or export it again if the header is wrong",
        )


def check_size(width: int, height: int) -> None:
    """Raise a MediaError for frames that are too small or too large."""
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"The frame has more than {MAX_PIXELS // 1_000_000} million pixels",
            got=f"too_large: {width} x {height} px",
            hint="scale it down first",
        )
    if width and height and min(width, height) < MIN_SIDE:
        raise MediaError(
            f"The frame has a side below {MIN_SIDE} px",
            got=f"too_small: {width} x {height} px, no face fits in",
            hint="use the original image",
        )


class _UnnamedFile:
    """A file object without a name."""

    def __init__(self, handle: BinaryIO) -> None:
        self.read, self.seek, self.tell = handle.read, handle.seek, handle.tell


def _is_animated_webp(handle: BinaryIO) -> bool:
    position = handle.tell()
    handle.seek(0)
    head = handle.read(21)
    handle.seek(position)
    return head[12:16] == b"VP8X" and len(head) == 21 and bool(head[20] & 2)


def _open_error(handle: BinaryIO, error: Exception) -> MediaError:
    boxes, _, _ = heif.top_level_boxes(handle)
    if heif.BRANDS & boxes:
        return MediaError(
            "The image cannot be decoded",
            got="not_media: an HEIC or AVIF image that holds no picture",
            hint="copy it again, or export it as JPEG or PNG",
        )
    if {b"ftyp", b"mdat"} & boxes and b"moov" not in boxes:
        return MediaError(
            "The MP4 or MOV file is incomplete",
            got="truncated: the file ends before its index",
            hint="copy it again from the camera",
        )
    detail = getattr(error, "strerror", None) or str(error)
    if b"moov" in boxes:
        return decode_error(f"its index is damaged ({detail})")
    return MediaError(
        "The file is neither a video nor an image",
        got=f"not_media: FFmpeg finds no video or image in it ({detail})",
        hint="check that its content matches its name",
    )
