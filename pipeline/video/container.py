"""Opening a media file, and saying in a sentence why it cannot be opened."""

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
"""One frame of more is refused: decoded it would take 300 MB."""

MAX_DURATION_S = 24 * 3600
"""A file that claims to last longer is refused: it would hold up its batch for hours."""

MIN_SIDE = 16
"""A picture smaller than this cannot hold a face anybody could read."""

# Brands of ISO files that keep a still picture in tiles, which FFmpeg gives one by one.
_TILED = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"}


@contextmanager
def opened(path: str, *, hwaccel: HWAccel | None = None) -> Iterator[InputContainer]:
    """The container behind a path; what FFmpeg refuses inside the block is a MediaError too.

    Args:
        hwaccel: decode on this device what it can decode.

    Raises:
        MediaError: with ``got`` = ``code: sentence``.
    """
    import av

    # None, not PANIC: any level routes FFmpeg's own threads through Python's lock, where closing
    # a decoder waits for a thread that waits for the interpreter. Seen to hang for ever.
    av.logging.set_level(None)
    try:
        handle = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise MediaError(
            "a readable file", got=f"unreadable: {error.strerror}", hint="check the file"
        ) from None
    with handle:
        try:
            nameless: Any = _Nameless(handle)
            container = av.open(nameless, metadata_errors="ignore", hwaccel=hwaccel)
        except (av.FFmpegError, ValueError) as error:
            raise _refused(handle, error) from None
        if container.format.name == "webp_pipe" and _is_animated_webp(handle):
            container.close()
            raise MediaError(
                "a WebP picture",
                got="not_media: an animated WebP, which FFmpeg does not decode",
                hint="export it as MP4 or GIF",
            )
        with container:
            try:
                yield container
            except av.FFmpegError as error:
                raise undecodable(error.strerror or str(error)) from None


def picture_stream(container: InputContainer) -> VideoStream:
    """The stream that the file is about, ready to decode.

    Raises:
        MediaError: there is none (``no_video_stream``), or its size is out of bounds.
    """
    from av.stream import Disposition

    for stream in container.streams.video:
        # The cover of a song is a picture, but not of what the file is about.
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise undecodable("no decoder for what the file says it holds")
            check_duration((container.duration or 0) / 1_000_000)
            check_size(stream.codec_context.width, stream.codec_context.height)
            if is_still(container) and stream.codec_context.name == "mjpeg":
                # Else half a JPEG comes out whole, the rest of it green. Other formats fail
                # by themselves, and some refuse sound pictures with this option.
                stream.codec_context.options = {"err_detect": "explode"}
            return stream
    raise MediaError(
        "a video or an image",
        got="no_video_stream: there is sound or data, but no moving picture",
        hint="leave it out, or export it with its picture",
    )


def is_still(container: InputContainer) -> bool:
    """Whether the file is one picture; an animation is a video."""
    return container.format.name.endswith("_pipe")


def undecodable(said: str) -> MediaError:
    """The error for a stream that cannot be decoded, with what the decoder said."""
    return MediaError(
        "a stream FFmpeg decodes", got=f"decode_error: {said}", hint="copy or export it again"
    )


def check_duration(seconds: float) -> None:
    """Refuse videos that claim to last longer than a day."""
    if seconds > MAX_DURATION_S:
        raise MediaError(
            f"at most {MAX_DURATION_S // 3600} hours",
            got=f"too_long: {seconds / 3600:.0f} hours by its own word",
            hint="cut it into parts, or export it again if it is not that long",
        )


def check_size(width: int, height: int) -> None:
    """Refuse pictures too small to hold a face or too large to hold in memory."""
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"at most {MAX_PIXELS // 1_000_000} million pixels",
            got=f"too_large: {width} x {height} px",
            hint="scale it down first",
        )
    if width and height and min(width, height) < MIN_SIDE:
        raise MediaError(
            f"sides of at least {MIN_SIDE} px",
            got=f"too_small: {width} x {height} px, no face fits in",
            hint="use the original picture",
        )


class _Nameless:
    """A file without a name, so that FFmpeg goes by content and can open nothing else.

    By name it would take ``%03d`` for a numbered sequence and follow the paths in a playlist.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self.read, self.seek, self.tell = handle.read, handle.seek, handle.tell


def _is_animated_webp(handle: BinaryIO) -> bool:
    position = handle.tell()
    handle.seek(0)
    head = handle.read(21)
    handle.seek(position)
    return head[12:16] == b"VP8X" and len(head) == 21 and bool(head[20] & 2)


def _refused(handle: BinaryIO, error: Exception) -> MediaError:
    boxes = _boxes(handle)
    if _TILED & boxes:
        return MediaError(
            "a picture in one piece",
            got="not_media: an HEIC picture, stored in tiles",
            hint="export it as JPEG or PNG",
        )
    if {b"ftyp", b"mdat"} & boxes and b"moov" not in boxes:
        return MediaError(
            "a whole MP4 or MOV file",
            got="truncated: the file ends before its index",
            hint="copy it again from the camera",
        )
    said = getattr(error, "strerror", None) or str(error)
    if b"moov" in boxes:
        return undecodable(f"its index is damaged ({said})")
    return MediaError(
        "a video or an image FFmpeg knows",
        got=f"not_media: FFmpeg finds no video or image in it ({said})",
        hint="check that the file is what its name says",
    )


def _boxes(handle: BinaryIO) -> set[bytes]:
    """Names of the top-level boxes of an MP4 or MOV file, and its brand."""
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
