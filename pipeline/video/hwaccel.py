"""Find a device that decodes video.

Off by default. Missing devices, devices that refuse and unknown codecs are tested, but no
device has run this yet. Hardware decoders hide damage that FFmpeg reports, every worker opens
the device for itself, and every frame is copied back, sampled or not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel

_PREFERRED = ("cuda", "videotoolbox", "vaapi", "d3d11va", "qsv", "amf")
"""Device types that copy frames back as plain nv12, in the order they are tried."""


@lru_cache(maxsize=1)
def device() -> str | None:
    """Return the first device type that opens an H.264 decoder, or None.

    FFmpeg's list of built-in types is not enough: the driver may be missing or in use.
    """
    import av
    from av.codec.hwaccel import HWAccel, hwdevices_available

    built = hwdevices_available()
    for name in _PREFERRED:
        if name not in built:
            continue
        try:
            HWAccel(name).create(av.codec.Codec("h264", "r"))
        except (av.FFmpegError, NotImplementedError, OSError):
            continue
        return name
    return None


def accelerator() -> HWAccel | None:
    """Return the device for ``open_container``; None without one."""
    from av.codec.hwaccel import HWAccel

    name = device()
    return HWAccel(name, allow_software_fallback=True) if name else None


def describe(*, enabled: bool) -> str:
    """Describe in one log line what decodes."""
    if not enabled:
        return "Decoding in software"
    name = device()
    return f"Decoding on {name}" if name else "No hardware decoder found; decoding in software"
