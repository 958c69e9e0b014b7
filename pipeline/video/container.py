"""Open media files and explain why one cannot be opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from warehouse.errors import MediaError

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_PIXELS = 100_000_000
"""Refuse larger frames; decoded, one would take 300 MB."""

MAX_DURATION_S = 24 * 3600
"""Refuse files that claim to last longer; they would block their batch for hours."""

MIN_SIDE = 16
"""Refuse smaller frames; no readable face fits in."""

# Brands of ISO files that store a still image in tiles, which FFmpeg returns one by one.
_TILED = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"}


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
    """Return the first video stream that is not a cover image.

    Raises:
        MediaError: there is none (``no_video_stream``), or its size is out of bounds.
    """
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise decode_error("FFmpeg has no decoder for its codec")
            check_duration((container.duration or 0) / 1_000_000)
            check_size(stream.codec_context.width, stream.codec_context.height)
            if is_still(container) and stream.codec_context.name == "mjpeg":
                # Otherwise half a JPEG decodes without an error, with a green rest. Other
                # formats fail by themselves, and some refuse intact images with this option.
                stream.codec_context.options = {"err_detect": "explode"}
            return stream
    raise MediaError(
        "The file has no video",
        got="no_video_stream: it has sound or data, but no video stream",
        hint="remove it, or export it with its video",
    )


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
    boxes = _top_level_boxes(handle)
    if _TILED & boxes:
        return MediaError(
            "The image cannot be decoded",
            got="not_media: an HEIC image, stored in tiles",
            hint="export it as JPEG or PNG",
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


def _top_level_boxes(handle: BinaryIO) -> set[bytes]:
    """Return the top-level box names of an MP4 or MOV file, and its brand."""
    names: set[bytes] = set()
    position = 0
    for _ in range(64):
        handle.seek(position)
        head = handle.read(16)
        if len(head) < 8:
            break
        size = int.from_bytes(head[:4], "big")
        names.add(head[4:8])
        if head[4:8] == b"ftyp":
            names.add(head[8:12])
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size < 8:
            break
        position += size
    return names
