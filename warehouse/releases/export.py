"""Export a version as the files that a published reader opens."""

from __future__ import annotations

import fcntl
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from warehouse.errors import ReleaseError
from warehouse.releases import layouts, verification, versions
from warehouse.releases.difficulty import LEVELS
from warehouse.releases.layouts import classes, folds
from warehouse.releases.layouts.core import Export, FrameReader, Options
from warehouse.releases.layouts.files import open_draft, publish
from warehouse.storage.home import Home

LAYOUTS = layouts.names()

_DELICATE = re.compile(r"[^A-Za-z0-9_/-]")
_LOCK = ".lock"


def export(
    home: str | Path | Home | None = None,
    *,
    name: str,
    to: str | Path,
    version: str | int = "latest",
    layout: str = "folder",
    dialect: str | None = None,
    frames: FrameReader | None = None,
    **options: Any,
) -> dict[str, int]:
    """Write a version into the new folder ``to``, in a published layout.

    Files are verified by their checksums while they are read. ``licences.csv`` names subject,
    source, licence and consent of every file; ``source.json`` states the release, the classes, and
    the rows in, out and left out with their reasons. An interrupted export is continued by the
    same call. A failed one leaves nothing.

    An erasure does not reach the exported copy. Delete it yourself.

    Args:
        layout: one of ``LAYOUTS``; ``docs/layouts.md`` describes them.
        dialect: a variant of the layout.
        frames: reader of whole frames, for ``boxes``.
        **options: fields of ``layouts.core.Options``.

    Returns:
        rows per split.

    Raises:
        ReleaseError: there is no such version, layout or dialect, ``to`` is not empty, no row
            fits, a file was changed, or consent or a licence forbids it.
    """
    chosen = layouts.load(layout)
    variant = layouts.dialect_of(chosen, dialect)
    asked = Options(layout=layout, dialect=variant, **options)
    _check(asked)
    labels = classes.read(
        chosen.orders.get(variant or "", chosen.order),
        label_set=asked.label_set,
        map_file=asked.map_file,
        faces=chosen.faces,
    )
    place, target = Home.at(home), Path(to).expanduser().absolute()
    path = versions.resolve(place, name, version)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ReleaseError(
            "The target is not a new or empty folder", got=str(to), hint="empty or rename it"
        )
    contents = verification.check(path, complete=True)
    if asked.synthetic and contents.get("synthetic") is None:
        raise ReleaseError(
            "This version holds no synthetic faces of a config of their own",
            got=f"{name} {path.name}",
            hint="leave --synthetic out, or build a version with `risorius release create "
            "--synthetic`",
        )
    draft = made = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = open_draft(target, path, asdict(asked), labels.facts())
        with open(draft / _LOCK, "w") as lock:
            _lock(lock, target)
            made = Export(place, path, target, draft, asked, labels, frames)
            if delicate := _DELICATE.findall(str(target)):
                shown = " ".join(sorted(set(delicate)))
                made.notes.append(f"some readers split paths at {shown!r}: move the folder")
            chosen.write(made)
            counts = made.finish()
            (draft / _LOCK).unlink()
            publish(draft, target)
    except OSError as error:
        _discard(draft)
        _check_read(made)
        raise ReleaseError(
            f"{to} cannot be written",
            got=error.strerror or str(error),
            hint="free space or choose another folder; the release is untouched",
        ) from error
    except Exception:
        # An interrupt is no Exception: its draft stays for the next call to continue.
        _discard(draft)
        _check_read(made)
        raise
    finally:
        if made is not None:
            made.close()
    return counts


def _check_read(made: Export | None) -> None:
    """Raise if a file was changed, because then that caused the failure."""
    if made is not None:
        made.verified()


def _check(options: Options) -> None:
    folds.check(options.folds)
    if options.size is not None and not 8 <= options.size <= 4096:
        raise ReleaseError(
            "The size is not 8 to 4096 pixels", got=str(options.size), hint="use 224"
        )
    if options.fps is not None and not 1 <= options.fps <= 1000:
        raise ReleaseError(
            "The rate is not 1 to 1000 rows a second", got=str(options.fps), hint="use 60"
        )
    if options.synthetic and options.folds is not None:
        raise ReleaseError(
            "Synthetic faces are for training, but every fold is a test set once",
            got=f"--synthetic with --folds {options.folds}",
            hint="leave one of them out",
        )
    if options.test_split not in (None, "validation", "test"):
        raise ReleaseError(
            "The test split is neither validation nor test",
            got=repr(options.test_split),
            hint="leave --test-split out to use both",
        )
    if options.difficulty not in (None, *LEVELS):
        raise ReleaseError(
            f"The difficulty is not one of {', '.join(LEVELS)}",
            got=repr(options.difficulty),
            hint="choose one of them",
        )
    if options.use not in (None, "commercial", "research"):
        raise ReleaseError(
            "The use is not one of commercial, research",
            got=repr(options.use),
            hint="declare one of them with --use",
        )


def _lock(handle: Any, target: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _BusyError(
            "Another process exports to this folder", got=str(target), hint="wait until it ends"
        ) from error


class _BusyError(ReleaseError):
    """The draft belongs to another process and must stay."""


def _discard(draft: Path | None) -> None:
    import sys

    if draft is not None and not isinstance(sys.exc_info()[1], _BusyError):
        shutil.rmtree(draft, ignore_errors=True)
