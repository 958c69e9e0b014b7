"""Write test videos with sound and drawn faces."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.media_files import pattern

Draw = Callable[[float], np.ndarray]


def beeping(
    path: Path,
    *,
    seconds: float,
    beep: tuple[float, float],
    late_s: float = 0.0,
    rate: int = 44_100,
    fps: int = 10,
    draw: Draw | None = None,
) -> Path:
    """Write a video whose sound starts ``late_s`` late and has one beep."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=fps, options={"qscale": "3"})
        first = draw(0.0) if draw else pattern(0)
        picture.height, picture.width = first.shape[:2]
        picture.pix_fmt = "yuv420p"
        heard = container.add_stream("aac", rate=rate)
        heard.layout = "stereo"
        for index in range(round(seconds * fps)):
            image = draw(index / fps) if draw else pattern(index)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode(None))
        times = np.arange(round(rate * seconds)) / rate
        tone = 0.8 * np.sin(2 * np.pi * 440 * times) * ((times >= beep[0]) & (times < beep[1]))
        for at in range(0, len(tone), 1024):
            piece = tone[at : at + 1024].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.stack([piece, piece]), "fltp", "stereo")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = at + round(late_s * rate)
            container.mux(heard.encode(frame))
        container.mux(heard.encode(None))
    return path
