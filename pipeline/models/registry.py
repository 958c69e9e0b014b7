"""The model packs of a home: what ships with Risorius, and what a user added."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from warehouse.errors import ModelError
from warehouse.ids import file_sha256
from warehouse.licences import model_terms
from warehouse.storage.home import Home

TASKS = {"detection": "finds faces", "recognition": "tells people apart"}
"""InsightFace's names of the tasks that Risorius uses, and what each is for here."""

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")
RECORD = "pack.json"


@dataclass(frozen=True)
class Pack:
    """Weights and the terms they came under.

    Attributes:
        tasks: what each file is for, by file name.
        sha256: by file name.
        source: where it came from; None for what ships with the package.
        place: the folder, or the file of shipped weights.
    """

    name: str
    licence: str
    tasks: dict[str, str]
    sha256: dict[str, str]
    source: str | None = None
    added_at: str | None = None
    place: str = field(default="", compare=False)

    @property
    def shipped(self) -> bool:
        return self.source is None


def listed(home: Home) -> list[Pack]:
    """Shipped weights first, then those that were added, by name."""
    added = sorted(home.models.glob(f"[!.]*/{RECORD}"))
    return [*shipped(), *(read(path.parent) for path in added)]


def find(home: Home, name: str) -> Pack:
    """The pack of that name.

    Raises:
        ModelError: there is none; lists those that are there.
    """
    packs = listed(home)
    for pack in packs:
        if pack.name == name:
            return pack
    raise ModelError(
        f"a model pack among {', '.join(pack.name for pack in packs)}",
        got=repr(name),
        hint="see `risorius models list`; `risorius models add` brings in another",
    )


def place_of(home: Home, name: str) -> str:
    """What a setting means: the folder of an added pack, else ``name`` as it stands."""
    folder = home.models / name
    return str(folder) if NAME.match(name) and (folder / RECORD).is_file() else name


def remove(home: Home, name: str) -> Pack:
    """Delete a pack that was added.

    Raises:
        ModelError: there is none of that name, or it ships with the package.
    """
    pack = find(home, name)
    if pack.shipped:
        raise ModelError(
            "a pack that was added", got=f"{name}, which is part of the package", hint="keep it"
        )
    shutil.rmtree(pack.place)
    return pack


def damaged(pack: Pack) -> list[str]:
    """Files that are missing or no longer what was added."""
    folder = Path(pack.place)
    return [
        file
        for file, digest in pack.sha256.items()
        if not (folder / file).is_file() or file_sha256(str(folder / file)) != digest
    ]


def licence_of(home: Home, name: str) -> str:
    """The terms of the weights that a setting names: as added, else as the register knows them."""
    folder = Path(place_of(home, name))
    return read(folder).licence if (folder / RECORD).is_file() else model_terms(name).licence


def read(folder: Path) -> Pack:
    try:
        return Pack(**json.loads((folder / RECORD).read_text()), place=str(folder))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"a readable {RECORD} in {folder}",
            got=f"{type(error).__name__}",
            hint="delete that folder and add the pack again",
        ) from None


def shipped() -> list[Pack]:
    from pipeline.faces.detect import shipped_weights

    root = Path(__file__).parents[2]
    places = (
        ("centerface", shipped_weights(), "finds faces"),
        ("default", root / "annotation" / "raters" / "weights" / "default.onnx", "rates faces"),
        ("judge", root / "annotation" / "raters" / "weights" / "judge.onnx", "judges made faces"),
        ("synthesis", root / "synthesis" / "weights" / "default", "draws faces"),
    )
    known = {"centerface": "centerface", "synthesis": "risorius-"}
    return [
        Pack(
            name=name,
            licence=model_terms(known.get(name, "machine-risorius-")).licence,
            tasks={place.name: task},
            sha256={},
            place=str(place),
        )
        for name, place, task in places
    ]
