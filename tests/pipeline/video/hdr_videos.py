"""HDR versions of SDR images, by ITU-R BT.2100 and BT.2408."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

PQ, HLG, BT2020, BT2020_NCL, BT709 = 16, 18, 9, 9, 1

_TO_BT2020 = np.array(
    [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593])


def coded_values(image: np.ndarray, *, transfer: int) -> np.ndarray:
    """Return R'G'B' in [0, 1] of an SDR image with white at 203 cd/m²."""
    shown = (image / 255) ** 2.4 @ _TO_BT2020.T * 203
    if transfer == PQ:
        power = (shown / 10_000) ** (2610 / 16384)
        ratio = (3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)
        return ratio ** (2523 / 32)
    luminance = np.maximum(shown @ _LUMINANCE, 1e-9)[..., None] / 1000
    scene = shown / 1000 * luminance ** (1 / 1.2 - 1)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def frame_10_bit(values: np.ndarray, weights: tuple[float, float, float]) -> av.VideoFrame:
    """Return R'G'B' as a frame of limited-range Y'CbCr, 10 bit."""
    red, _, blue = weights
    luma = values @ np.array(weights)
    cb = (values[..., 2] - luma) / (2 * (1 - blue))
    cr = (values[..., 0] - luma) / (2 * (1 - red))
    height, width = luma.shape
    half = (height // 2, 2, width // 2, 2)
    planes = [
        64 + 876 * luma,
        *(512 + 896 * one.reshape(half).mean(axis=(1, 3)) for one in (cb, cr)),
    ]
    data = np.concatenate([np.round(one).astype(np.uint16).reshape(-1) for one in planes])
    return av.VideoFrame.from_ndarray(data.reshape(-1, width), format="yuv420p10le")


def video(path: Path, image: np.ndarray, *, transfer: int | None, frames: int = 3) -> Path:
    """Write an image as HEVC, 10 bit: HDR, or SDR without a transfer."""
    if transfer is None:
        frame = frame_10_bit(image / 255, (0.2126, 0.7152, 0.0722))
        tags = (BT709, BT709, BT709)
    else:
        frame = frame_10_bit(coded_values(image, transfer=transfer), (0.2627, 0.6780, 0.0593))
        tags = (transfer, BT2020, BT2020_NCL)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=5)
        stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "yuv420p10le"
        stream.options = {"x265-params": "log-level=none:crf=4"}
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = tags
        frame.color_trc, frame.color_primaries, frame.colorspace = tags
        for _ in range(frames):
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
