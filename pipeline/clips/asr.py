"""Speech recognition as a plug-in: none is shipped, any callable may be named.

A plug-in takes a sound, float32[n] in [-1, 1], mono, and its rate in hertz, and gives segments:
mappings or objects with ``start``, ``end`` (seconds) and ``text``. A package announces it under
the entry point group ``risorius.speech``; ``RISORIUS_SPEECH`` names it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pipeline.clips.transcripts import Said, checked
from warehouse.errors import ModelError, SettingsError

GROUP = "risorius.speech"

Recogniser = Callable[[np.ndarray, int], Iterable[Any]]


def load(name: str) -> Recogniser:
    """The recogniser of that name: an entry point's, or ``package.module:callable``.

    Raises:
        SettingsError: nothing is announced under this name; says what is.
        ModelError: it is there and cannot be imported or called.
    """
    announced = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    try:
        if name in announced:
            found = announced[name].load()
        elif ":" in name:
            module, _, attribute = name.partition(":")
            found = getattr(importlib.import_module(module), attribute)
        else:
            raise SettingsError(
                f"a recogniser among {', '.join(sorted(announced)) or '(none is installed)'}, or "
                "package.module:callable",
                got=repr(name),
                hint="install a package that announces it, or change RISORIUS_SPEECH",
            )
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"a recogniser {name} that can be imported", got=str(error), hint="mend its package"
        ) from error
    if not callable(found):
        raise ModelError(
            f"a callable as recogniser {name}", got=type(found).__name__, hint="name a function"
        )
    return found


def recognise(recogniser: Recogniser, sound: np.ndarray, rate: int, *, name: str) -> list[Said]:
    """What a recogniser hears, checked and by time.

    Args:
        sound: float32[n] in [-1, 1].

    Raises:
        ModelError: it fails, or its answer is no list of segments.
    """
    try:
        return checked(recogniser(sound, rate))
    except Exception as error:  # a plug-in raises what it likes
        raise ModelError(
            f"segments with start, end and text from the recogniser {name}",
            got=f"{type(error).__name__}: {error}",
            hint="mend the plug-in, or unset RISORIUS_SPEECH",
        ) from error
