"""Decode the sound of a video and write pieces of it as FLAC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.video.container import open_container, video_stream
from warehouse.errors import MediaError
from warehouse.storage import atomic

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

RATE = 16_000
"""Hertz, the rate of speech and voice models. Files are mono, 16 bit, FLAC: small and lossless."""

_MAX_S = 4 * 3600
"""Longer sound is cut here; one hour takes 115 MB of memory."""


def load(path: str) -> np.ndarray:
    """Decode the sound of a video from the time of its first frame.

    A late start and gaps become silence. Sound before the first frame and damaged packets are
    skipped.

    Returns:
        int16[n] at ``RATE``, mono.

    Raises:
        MediaError: the file cannot be opened or has no sound that can be decoded.
    """
    import av

    with open_container(path) as container:
        video = video_stream(container)
        if not container.streams.audio:
            raise MediaError(
                "The video has no sound", got="no_sound: no audio stream", hint="use another video"
            )
        stream = container.streams.audio[0]
        zero = _start_s(video, container)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        pieces: list[tuple[int, np.ndarray]] = []
        at: float | None = None
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                at = None
                continue
            for frame in frames:
                if at is None or (frame.time is not None and abs(frame.time - at) > 0.1):
                    at = frame.time if frame.time is not None else (at or zero)
                frame.pts = None
                for part in resampler.resample(frame):
                    samples = part.to_ndarray().reshape(-1)
                    pieces.append((round((at - zero) * RATE), samples))
                    at += len(samples) / RATE
                if at - zero > _MAX_S:
                    return _assembled(pieces)
    if not pieces:
        raise MediaError(
            "The sound cannot be decoded",
            got="no_sound: no packet could be decoded",
            hint="export the video again",
        )
    return _assembled(pieces)


def cut(samples: np.ndarray, *, start_s: float, end_s: float) -> np.ndarray:
    """Return the samples between two times, as far as they exist."""
    return samples[max(0, round(start_s * RATE)) : max(0, round(end_s * RATE))]


def write(path: Path, samples: np.ndarray) -> None:
    """Write int16[n] as FLAC atomically; equal samples give equal bytes."""
    import av

    with atomic.replace_file(path) as draft, av.open(str(draft), "w", format="flac") as container:
        container.flags |= 0x0400  # bitexact: no FFmpeg version in the file
        stream = container.add_stream("flac", rate=RATE)
        stream.layout = "mono"
        stream.codec_context.format = "s16"
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def _start_s(video: VideoStream, container: InputContainer) -> float:
    if video.start_time is not None and video.time_base is not None:
        return float(video.start_time * video.time_base)
    return (container.start_time or 0) / 1_000_000


def _assembled(pieces: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Place pieces at their offsets; samples before 0 are dropped."""
    if not pieces:
        return np.zeros(0, dtype=np.int16)
    length = max(0, *(at + len(samples) for at, samples in pieces))
    whole = np.zeros(length, dtype=np.int16)
    for at, samples in pieces:
        inside = samples[max(0, -at) :]
        whole[max(0, at) : max(0, at) + len(inside)] = inside
    return whole
