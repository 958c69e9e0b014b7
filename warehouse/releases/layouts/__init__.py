"""Folder structures that published readers open, one module per layout."""

from __future__ import annotations

from importlib import import_module

from warehouse.errors import ReleaseError
from warehouse.releases.layouts.core import Layout

MODULES = {
    "folder": "folder",
    "webdataset": "webdataset",
    "imagefolder": "imagefolder",
    "list": "list_file",
    "raf": "raf",
    "ferplus": "ferplus",
    "manifest": "manifest_csv",
    "fer-txt": "fer_txt",
    "attributes": "attributes",
    "hdf5": "hdf5",
    "affectnet": "affectnet",
    "boxes": "boxes",
    "labels-csv": "labels_csv",
    "dfew": "dfew",
    "ferv39k": "ferv39k",
    "mafw": "mafw",
    "mae-dfer": "mae_dfer",
    "affwild2": "frames_txt:AFFWILD2",
    "abaw": "frames_txt:ABAW",
    "micro": "micro",
    "curves": "curves",
    "traces": "traces",
    "self-other": "self_other",
    "context-clips": "context_clips",
    "meld": "dialogues:MELD",
    "erc-json": "dialogues:ERC_JSON",
    "emo-superb": "speech:EMO_SUPERB",
    "soft-csv": "speech:SOFT_CSV",
    "rated-audio": "speech:RATED_AUDIO",
    "merbench": "mer:MERBENCH",
    "mer-ov": "mer:MER_OV",
    "emer": "mer:EMER",
    "fold-txt": "fold_txt",
    "c-expr": "c_expr",
    "bah": "bah",
    "mosei": "mosei",
    "fea": "fea",
    "expllm": "expllm",
    "text-au": "text_au",
    "turns": "conversations:TURNS",
    "llava": "conversations:LLAVA",
    "swift": "conversations:SWIFT",
    "r1": "conversations:R1",
}
"""Layout to its module in this package, and to a name in it other than ``LAYOUT``."""


def names() -> tuple[str, ...]:
    """Return the names of all layouts."""
    return tuple(MODULES)


def load(name: str) -> Layout:
    """Return a layout.

    Raises:
        ReleaseError: there is no such layout.
    """
    if name not in MODULES:
        raise ReleaseError(
            f"The layout is not one of {', '.join(MODULES)}",
            got=repr(name),
            hint="choose one of them",
        )
    module, _, attribute = MODULES[name].partition(":")
    layout: Layout = getattr(import_module(f"{__name__}.{module}"), attribute or "LAYOUT")
    return layout


def dialect_of(layout: Layout, dialect: str | None) -> str | None:
    """Return the dialect, by default the layout's first.

    Raises:
        ReleaseError: the layout has no such dialect.
    """
    if dialect is None:
        return layout.dialects[0] if layout.dialects else None
    if dialect not in layout.dialects:
        raise ReleaseError(
            f"The layout {layout.name} has no such dialect",
            got=repr(dialect),
            hint=f"use one of {', '.join(layout.dialects)}"
            if layout.dialects
            else "leave --dialect out",
        )
    return dialect
