"""Videos whose search ended their worker: what was tried, so that no run tries the same again."""

from __future__ import annotations

import json
from collections.abc import Mapping

from warehouse.errors import RisoriusError
from warehouse.masking import mask

KEY = "tried"
"""Under which the footer of a video's file says so."""

MOST_CRASHES = 2
"""A worker may be ended for what its neighbours do to memory: once is no proof against a video."""

_AGAIN = (
    "it is searched again when RISORIUS_VIDEO_LIMIT_S is higher, other settings of faces or the "
    "file change, or with RISORIUS_RETRY_FAILED=true"
)
_ONCE_MORE = "the next run tries it once more"
_NO_MORE = (
    "it is searched again when settings of faces or the file change, or with "
    "RISORIUS_RETRY_FAILED=true"
)


def ended_its_worker(error: Exception) -> bool:
    """Whether the worker went, by the clock or by itself; other errors were only raised."""
    # Engines say so with the base class; what a video raises by itself is one of its children.
    return type(error) is RisoriusError


def note(
    error: Exception, *, footer: Mapping[str, str], fingerprint: str, limit_s: float | None
) -> str | None:
    """What to keep under ``KEY``; None for an error that says nothing against the video.

    Args:
        footer: of the video's file so far.
        fingerprint: of the options it was searched with.
        limit_s: seconds it was allowed.
    """
    if not ended_its_worker(error):
        return None
    before = _tried(footer, fingerprint)
    late = _is_timeout(error)
    crashes = int(before.get("crashes") or 0) + (not late)
    told = {"fingerprint": fingerprint, "limit_s": limit_s if late else None, "crashes": crashes}
    return json.dumps(told, sort_keys=True)


def is_spared(footer: Mapping[str, str], *, fingerprint: str, limit_s: float | None) -> bool:
    """Whether trying again with these options and this limit would be trying the same."""
    before = _tried(footer, fingerprint)
    if int(before.get("crashes") or 0) >= MOST_CRASHES:
        return True
    allowed = before.get("limit_s")
    return allowed is not None and limit_s is not None and limit_s <= float(allowed)


def reason(error: Exception, *, tried: str | None) -> str:
    """Why a video has failed, and what makes a run search it again."""
    if isinstance(error, RisoriusError) and _is_timeout(error):
        return f"{error.got}; {error.hint}; {_AGAIN}"
    if tried is None:
        return mask(f"crashed: {error}")
    again = _NO_MORE if json.loads(tried)["crashes"] >= MOST_CRASHES else _ONCE_MORE
    return mask(f"crashed: {error}; {again}")


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, RisoriusError) and error.got.startswith("timeout")


def _tried(footer: Mapping[str, str], fingerprint: str) -> dict[str, float | str | None]:
    told = json.loads(footer.get(KEY) or "{}")
    return told if told.get("fingerprint") == fingerprint else {}
