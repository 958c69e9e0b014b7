"""Model packs of a home with their licences: list, add, remove.

``models.add(home, models.plan("buffalo_l"))`` adds a pack after its licence was accepted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pipeline.faces.detect.base import weights_error
from pipeline.ingest import archive, download
from warehouse.errors import ModelError, SettingsError
from warehouse.ids import file_sha256
from warehouse.licences import LICENCES, model_terms, terms
from warehouse.storage import atomic
from warehouse.storage.home import Home

TASKS = {"detection": "finds faces", "recognition": "tells people apart"}
"""Purpose of the tasks of InsightFace that Risorius uses."""

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")
RECORD = "pack.json"


@dataclass(frozen=True)
class Pack:
    """Weights with their licence.

    Attributes:
        tasks: task by file name.
        sha256: checksum by file name.
        source: path or URL the pack was added from; None if shipped with Risorius.
        place: folder of the pack, or file of shipped weights.
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
        """Whether the pack is part of Risorius."""
        return self.source is None


def listed(home: Home) -> list[Pack]:
    """List shipped weights, then added packs by name."""
    added = sorted(home.models.glob(f"[!.]*/{RECORD}"))
    return [*_shipped(), *(_read(path.parent) for path in added)]


def find(home: Home, name: str) -> Pack:
    """Return the pack of that name.

    Raises:
        ModelError: there is no such pack.
    """
    packs = listed(home)
    for pack in packs:
        if pack.name == name:
            return pack
    raise ModelError(
        f"The model pack is not among {', '.join(pack.name for pack in packs)}",
        got=repr(name),
        hint="see `risorius models list`; `risorius models add` adds another",
    )


def place_of(home: Home, name: str) -> str:
    """Resolve a setting to the folder of an added pack; else return ``name``."""
    folder = home.models / name
    return str(folder) if NAME.match(name) and (folder / RECORD).is_file() else name


def remove(home: Home, name: str) -> Pack:
    """Delete an added pack.

    Raises:
        ModelError: there is no such pack, or it ships with Risorius.
    """
    pack = find(home, name)
    if pack.shipped:
        raise ModelError(
            "Shipped weights cannot be removed",
            got=f"{name} is part of the package",
            hint="remove only packs that were added",
        )
    shutil.rmtree(pack.place)
    return pack


def damaged(pack: Pack) -> list[str]:
    """Return the files that are missing or have another checksum."""
    folder = Path(pack.place)
    return [
        file
        for file, digest in pack.sha256.items()
        if not (folder / file).is_file() or file_sha256(str(folder / file)) != digest
    ]


def licence_of(home: Home, name: str) -> str:
    """Return the licence of the weights that a setting names."""
    folder = Path(place_of(home, name))
    return _read(folder).licence if (folder / RECORD).is_file() else model_terms(name).licence


def _read(folder: Path) -> Pack:
    try:
        return Pack(**json.loads((folder / RECORD).read_text()), place=str(folder))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"{folder / RECORD} cannot be read",
            got=type(error).__name__,
            hint="delete that folder and add the pack again",
        ) from None


def _shipped() -> list[Pack]:
    from pipeline.faces.detect import shipped_weights

    root = Path(__file__).parents[1]
    weights = root / "annotation" / "raters" / "weights"
    places = (
        ("centerface", shipped_weights(), "finds faces"),
        ("default", weights / "default.onnx", "rates faces"),
        ("guide", weights / "guide.onnx", "guides synthesis"),
        ("judge", weights / "judge.onnx", "evaluates synthetic faces"),
        ("synthesis", root / "synthesis" / "weights" / "default", "generates faces"),
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


ZOO = ("buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc", "antelopev2")
"""Packs of InsightFace's model zoo with a detector of five keypoints."""

ZOO_ADDRESS = "https://github.com/deepinsight/insightface/releases/download/model-zoo/{}.zip"
"""Address that InsightFace 2.1 uses; ``RISORIUS_MODEL_ZOO`` overrides it with a mirror."""


@dataclass(frozen=True)
class Plan:
    """A pack to add, with the licence to accept first.

    Attributes:
        address: path or URL.
        licence: name in ``warehouse.licences``.
    """

    name: str
    address: str
    licence: str

    @property
    def question(self) -> str:
        """The licence as a question to the user."""
        found = terms(self.licence)
        use = "" if found.commercial else " Commercial use is not allowed."
        return f"{self.name} comes under {found.name}. {found.note}{use}"

    def refuse(self) -> NoReturn:
        """Raise SettingsError because the licence was not accepted."""
        raise SettingsError(
            f"The licence of {self.name} was not accepted",
            got=f"no --accept. {self.question}",
            hint="read the licence at its source, then give --accept",
        )


def plan(source: str, *, name: str | None = None, licence: str | None = None) -> Plan:
    """Resolve name, address and licence of a pack without fetching it.

    Raises:
        SettingsError: the name or licence is invalid, or no licence is known.
    """
    wanted = _checked(name or Path(source.rstrip("/").rsplit("/", 1)[-1]).stem)
    zoo = os.environ.get("RISORIUS_MODEL_ZOO") or ZOO_ADDRESS
    address = zoo.format(source) if source in ZOO else source
    stated = licence or (
        model_terms(source).licence if source in ZOO else model_terms(wanted).licence
    )
    return Plan(name=wanted, address=address, licence=_known(stated))


def add(home: Home, plan: Plan) -> Pack:
    """Add a pack to ``models/<name>/`` of the home, whole or not at all.

    Only ONNX files are copied: loading one runs no foreign code. Adding the same files with the
    same name and licence again changes nothing.

    Raises:
        ModelError: the pack has no detection or recognition model, or a damaged one.
        MediaError: the source cannot be fetched or unpacked.
        SettingsError: another pack has the name.
    """
    draft = atomic.draft_path(home.models / plan.name)
    draft.mkdir(parents=True)
    try:
        _copy_models(plan.address, draft)
        files = sorted(draft.glob("*.onnx"))
        pack = Pack(
            name=plan.name,
            licence=plan.licence,
            tasks=_tasks(files, source=plan.address),
            sha256={path.name: file_sha256(str(path)) for path in files},
            source=plan.address,
            added_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            place=str(home.models / plan.name),
        )
        if (existing := _existing(home, pack)) is not None:
            return existing
        text = {key: value for key, value in asdict(pack).items() if key != "place"}
        (draft / RECORD).write_text(json.dumps(text, indent=1) + "\n")
        draft.rename(home.models / plan.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return pack


def _existing(home: Home, pack: Pack) -> Pack | None:
    if not (home.models / pack.name / RECORD).is_file():
        return None
    there = _read(home.models / pack.name)
    if there.sha256 == pack.sha256 and there.licence == pack.licence:
        return there
    raise SettingsError(
        f"The name {pack.name} is taken",
        got="a pack of that name with other files or terms",
        hint=f"risorius models remove {pack.name} first, or give --name",
    )


def _copy_models(address: str, folder: Path) -> None:
    """Copy the ONNX files of a file, folder, archive or URL into ``folder``."""
    place = Path(address).expanduser()
    if download.is_address(address):
        download.fetch(address, folder / "fetched", {})
        place = next(path for path in (folder / "fetched").iterdir() if path.is_file())
    elif not place.exists():
        raise SettingsError(
            "The pack is neither in the model zoo nor an existing file or folder",
            got=address,
            hint=f"check the path; the zoo has {', '.join(ZOO)}",
        )
    if archive.is_archive(str(place)):
        archive.unpack(place, folder / "unpacked")
        place = folder / "unpacked"
    # Some archives of the zoo hold their files below a folder, others do not.
    for path in sorted(place.rglob("*.onnx")) if place.is_dir() else [place]:
        if path.is_file() and not path.is_symlink():
            shutil.copyfile(path, folder / path.name)
    for below in ("fetched", "unpacked"):
        shutil.rmtree(folder / below, ignore_errors=True)


def _tasks(files: Sequence[Path], *, source: str) -> dict[str, str]:
    from insightface.model_zoo import get_model

    found: dict[str, str] = {}
    for path in files:
        try:
            model: Any = get_model(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # the zoo asserts, onnxruntime raises its own types
            raise weights_error(path, error) from error
        found[path.name] = str(getattr(model, "taskname", "unknown"))
    if not set(found.values()) & set(TASKS):
        raise ModelError(
            "The pack has no model for detection or recognition",
            got=f"{len(files)} ONNX files in {source}",
            hint=f"name a pack such as {ZOO[0]}, or one .onnx file of it",
        )
    return found


def _checked(name: str) -> str:
    if not NAME.match(name) or name in {pack.name for pack in _shipped()}:
        raise SettingsError(
            "The name is not of letters, digits, dots and dashes, or is that of shipped weights",
            got=repr(name),
            hint="give --name",
        )
    return name


def _known(licence: str) -> str:
    found = terms(licence)
    if found.name == "unknown":
        raise SettingsError(
            f"The licence is not among {', '.join(one.name for one in LICENCES.values())}",
            got=repr(licence),
            hint="read the licence of these weights and give --licence",
        )
    return found.name
