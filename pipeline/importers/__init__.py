"""Structures that published data sets come in, one per row of a table.

A format says why a folder has it and yields samples (``samples``). Reading is streaming; what
gives no vote is counted by reason. ``spool`` turns samples into files of a batch and votes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from warehouse.errors import SettingsError

if TYPE_CHECKING:
    from pipeline.importers.samples import Folder, Format

FORMATS = {
    "metadata": "columns:METADATA",
    "fer2013": "fer2013:FER2013",
    "ferplus": "fer2013:FERPLUS",
    "affectnet": "affectnet:AFFECTNET",
    "affectnet-kaggle": "affectnet:KAGGLE",
    "raf": "raf:RAF",
    "expw": "raf:EXPW",
    "ck+": "ck_plus:FORMAT",
    "imagefolder": "class_folders:FORMAT",
    "folder": "columns:NESTED",
    "parquet": "columns:PARQUET",
    "hub": "columns:HUB",
    "webdataset": "columns:WEBDATASET",
    "list": "lists:LIST",
    "manifest": "lists:MANIFEST",
    "labels-csv": "lists:BENCHMARK",
    "fer-txt": "lists:FOLDS",
    "attributes": "lists:ATTRIBUTES",
    "coco": "boxes:COCO",
    "yolo": "boxes:YOLO",
    "voc": "boxes:VOC",
    "fer-yolo": "boxes:FER_YOLO",
}
"""Format to its module in this package and its name there."""

AUTO = "auto"


def load(name: str) -> Format:
    """Return a format.

    Raises:
        SettingsError: there is no such format.
    """
    if name not in FORMATS:
        raise SettingsError(
            "No such format of a data set",
            got=repr(name),
            hint=f"use {AUTO} or one of {', '.join(FORMATS)}",
        )
    module, _, attribute = FORMATS[name].partition(":")
    found: Format = getattr(import_module(f"{__name__}.{module}"), attribute)
    return found


def recognise(folder: Folder) -> dict[str, str]:
    """Return the formats that a folder may have, each with the reason."""
    from pipeline.importers import own

    stated = own.read(folder.path)
    formats = [load(name) for name in FORMATS]
    if stated is not None:
        formats = [one for one in formats if stated.layout in one.layouts]
    fitting = {one.name: why for one in formats if (why := one.identify(folder))}
    hidden = {name for one in formats if one.name in fitting for name in one.over}
    return {name: why for name, why in fitting.items() if name not in hidden}


def choose(folder: Folder, name: str = AUTO) -> tuple[Format, str]:
    """Return the format of a folder and the reason for it.

    Raises:
        SettingsError: no format fits, or more than one.
    """
    if name != AUTO:
        return load(name), "named by --format"
    found = recognise(folder)
    if len(found) == 1:
        (only, why), *_ = found.items()
        return load(only), why
    if found:
        raise SettingsError(
            "Several formats fit this folder",
            got="; ".join(f"{one}: {why}" for one, why in found.items()),
            hint="choose one with --format",
        )
    raise SettingsError(
        "The folder has the structure of no known data set",
        got=_seen(folder),
        hint="write metadata.csv with file_name and label, or name the structure with --format: "
        + ", ".join(FORMATS),
    )


def _seen(folder: Folder) -> str:
    seen = [*folder.tables[:4], *(f"{one}/" for one in folder.folders[:4])]
    return f"{folder.path.name}: {', '.join(seen) or 'an empty folder'}"
