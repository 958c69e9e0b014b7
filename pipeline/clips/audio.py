"""The sound of a video, in the time of its pictures, and pieces of it as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.video.container import open_container, video_stream
from warehouse.errors import MediaError
from warehouse.storage import atomic

RATE = 16_000
"""Hertz: what speech and voice models take. One channel, 16 bit, FLAC: small and lossless."""

_MOST_S = 4 * 3600
"""A longer sound is cut here: in memory an hour takes 115 MB."""


def load(path: str) -> np.ndarray:
    """The whole sound of a video, int16[n] at ``RATE``, mono; row 0 is the first picture's moment.

    A sound that starts late begins with silence, what comes before the first picture is left out,
    gaps are silence, and damaged packets are passed over.

    Raises:
        MediaError: the file cannot be opened or has no sound that can be decoded.
    """
    import av

    with open_container(path) as container:
        picture = video_stream(container)
        if not container.streams.audio:
            raise MediaError("a video with sound", got="no_sound: it has none", hint="leave it")
        stream = container.streams.audio[0]
        zero = _start(picture, container)
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
                if at - zero > _MOST_S:
                    return _laid(pieces)
    if not pieces:
        raise MediaError(
            "sound that can be decoded", got="no_sound: nothing could be decoded", hint="leave it"
        )
    return _laid(pieces)


def cut(sound: np.ndarray, *, start_s: float, end_s: float) -> np.ndarray:
    """The samples between two seconds, as many as there are."""
    return sound[max(0, round(start_s * RATE)) : max(0, round(end_s * RATE))]


def write(path: Path, samples: np.ndarray) -> None:
    """Write int16[n] as a FLAC file, whole or not at all; the same samples give the same bytes."""
    import av

    with atomic.replace_file(path) as draft, av.open(str(draft), "w", format="flac") as container:
        container.flags |= 0x0400  # bitexact: no version of FFmpeg in the file
        stream = container.add_stream("flac", rate=RATE)
        stream.layout = "mono"
        stream.codec_context.format = "s16"
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def _start(picture: object, container: object) -> float:
    start, base = getattr(picture, "start_time", None), getattr(picture, "time_base", None)
    if start is not None and base is not None:
        return float(start * base)
    return (getattr(container, "start_time", None) or 0) / 1_000_000


def _laid(pieces: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Pieces at their places; what lies before 0 is left out."""
    if not pieces:
        return np.zeros(0, dtype=np.int16)
    length = max(0, *(at + len(samples) for at, samples in pieces))
    whole = np.zeros(length, dtype=np.int16)
    for at, samples in pieces:
        kept = samples[max(0, -at) :]
        whole[max(0, at) : max(0, at) + len(kept)] = kept
    return whole
