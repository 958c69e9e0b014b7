"""Any container FFmpeg reads as upright RGB pictures with their true times."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.video import hwaccel as devices
from pipeline.video.container import is_still, opened, picture_stream, undecodable
from pipeline.video.decoding import Decoding, Ticks
from pipeline.video.frames import Picture, picture_of
from pipeline.video.prefetch import ahead
from pipeline.video.shots import Cuts
from warehouse.errors import MediaError

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel

_log = logging.getLogger(__name__)

_AHEAD = 3
_AHEAD_PIXELS = 16_000_000
"""As many pictures wait as fit in this, at most ``_AHEAD``, at least one."""

_DECODERS = 4
"""Threads inside FFmpeg: each holds pictures of its own, and videos run side by side anyway."""


@dataclass(frozen=True)
class VideoFacts:
    """What a container says of its picture; sides are those of the upright picture, as shown.

    Attributes:
        duration_s: 0 for a still image.
        fps: mean over the stream; None for a still image.
        rotation: clockwise degrees the stored picture is turned by to stand upright.
    """

    duration_s: float
    fps: float | None
    width: int
    height: int
    rotation: int
    codec: str
    has_audio: bool


@dataclass(frozen=True, eq=False)
class Frame:
    """One sampled picture.

    Attributes:
        index: number of the frame in the video, from 0.
        time_s: its presentation time, from the first picture.
        picture: its pixels, made when asked for.
        cut: the shot changed since the sample before.
    """

    index: int
    time_s: float
    picture: Picture
    cut: bool = False

    @property
    def image(self) -> np.ndarray:
        """uint8[h, w, 3], RGB, upright, with square pixels."""
        return self.picture.image


def probe(path: str) -> VideoFacts:
    """Facts about a file, after decoding its first picture.

    Raises:
        MediaError: with ``got`` = ``code: sentence``; codes are ``unreadable``, ``not_media``,
            ``no_video_stream``, ``truncated``, ``decode_error``, ``too_small``, ``too_large``.
    """
    with opened(path) as container:
        stream = picture_stream(container)
        first = next(container.decode(stream), None)
        if first is None:
            raise undecodable("no picture could be decoded")
        still = is_still(container)
        picture = picture_of(first, stream, path=path, still=still)
        rate = stream.average_rate or stream.guessed_rate
        width, height = picture.size
        return VideoFacts(
            duration_s=0.0 if still else (container.duration or 0) / 1_000_000,
            fps=None if still or not rate else float(rate),
            width=width,
            height=height,
            rotation=-90 * picture.turns % 360,
            codec=stream.codec_context.name,
            has_audio=bool(container.streams.audio),
        )


def sample(path: str, *, fps: float = 5.0, hardware: bool = False) -> Iterator[Frame]:
    """Frames at or after each tick of ``1 / fps`` seconds, with the times they really have.

    A thread decodes ahead by a few frames, whatever the length of the video. A still image is
    one frame at 0 s.

    Args:
        hardware: decode on a device where there is one that can; what it cannot or will not is
            decoded in software.

    Raises:
        MediaError: as ``probe``; also after the last frame, when part of the video could not be
            decoded (``decode_error``) or is not there (``truncated``).
    """
    accelerator = devices.accelerator() if hardware else None
    frames = (
        _sampled(path, fps=fps)
        if accelerator is None
        else _with_fallback(path, fps=fps, accelerator=accelerator)
    )
    first = next(frames, None)
    if first is None:
        return
    width, height = first.picture.size
    yield first
    yield from ahead(frames, depth=min(_AHEAD, max(1, _AHEAD_PIXELS // (width * height))))


def _with_fallback(path: str, *, fps: float, accelerator: HWAccel) -> Generator[Frame]:
    """Frames from a device; from where it fails on, those of a second pass in software.

    A device may run out of memory or refuse a profile: the last word on a file is software's.
    """
    last = -1
    try:
        for frame in _sampled(path, fps=fps, hwaccel=accelerator):
            last = frame.index
            yield frame
        return
    except MediaError as error:
        _log.info("software decodes in place of the device: %s", error.got)
    yield from (frame for frame in _sampled(path, fps=fps) if frame.index > last)


def _sampled(path: str, *, fps: float, hwaccel: HWAccel | None = None) -> Generator[Frame]:
    with opened(path, hwaccel=hwaccel) as container:
        stream = picture_stream(container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = _DECODERS
        still = is_still(container)
        ticks, cut = Ticks(fps), False
        decoding = Decoding(container, stream, ticks=ticks)
        for index, time_s, frame, begins in Cuts().mark(decoding.frames()):
            cut = cut or begins
            if not ticks.take(time_s):
                continue
            picture = picture_of(frame, stream, path=path, still=still)
            yield Frame(index=index, time_s=time_s, picture=picture, cut=cut)
            cut = False
            if still:
                return
        decoding.check()
