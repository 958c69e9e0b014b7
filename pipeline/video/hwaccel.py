"""A device that decodes video, where one can really be opened; else FFmpeg's own decoders.

Off unless asked for: what happens without a device, with one that refuses, and with codecs it
does not know is tested, but no device has run this yet. Decoders in hardware also hide damage
that FFmpeg's own report, each worker opens the device for itself, and every picture is copied
back, sampled or not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel

_FIRST = ("cuda", "videotoolbox", "vaapi", "d3d11va", "qsv", "amf")
"""Devices that copy pictures back as plain nv12; asked in this order."""


@lru_cache(maxsize=1)
def device() -> str | None:
    """Name of the first kind of device that opens a decoder for H.264 here; None for none.

    What FFmpeg was built with says little: the driver may be missing or the device in use.
    """
    import av
    from av.codec.hwaccel import HWAccel, hwdevices_available

    built = hwdevices_available()
    for name in _FIRST:
        if name not in built:
            continue
        try:
            HWAccel(name).create(av.codec.Codec("h264", "r"))
        except (av.FFmpegError, NotImplementedError, OSError):
            continue
        return name
    return None


def accelerator() -> HWAccel | None:
    """For ``opened``; None without a device. A codec the device lacks is decoded without it."""
    from av.codec.hwaccel import HWAccel

    name = device()
    return HWAccel(name, allow_software_fallback=True) if name else None


def told(*, wanted: bool) -> str:
    """One line on what decodes, for a log."""
    if not wanted:
        return "decodes in software"
    name = device()
    return f"decodes with {name}" if name else "no hardware decoder: software"
