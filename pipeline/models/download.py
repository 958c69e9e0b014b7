"""Bringing in a model pack: plan, terms to accept, files, and what they are for."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from pipeline.faces.detect.base import weights_error
from pipeline.ingest import archive, download
from pipeline.models.registry import NAME, RECORD, TASKS, Pack, read, shipped
from warehouse.errors import ModelError, SettingsError
from warehouse.ids import file_sha256
from warehouse.licences import LICENCES, model_terms, terms
from warehouse.storage import atomic
from warehouse.storage.home import Home

ZOO = ("buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc", "antelopev2")
"""Packs of InsightFace's model zoo that have a detector with five keypoints."""

ZOO_ADDRESS = "https://github.com/deepinsight/insightface/releases/download/model-zoo/{}.zip"
"""Where InsightFace 2.1 itself fetches them; ``RISORIUS_MODEL_ZOO`` names a mirror."""


@dataclass(frozen=True)
class Plan:
    """A pack to be added, and the terms that must be accepted first.

    Attributes:
        address: what is read: a path or a URL.
        licence: name in ``warehouse.licences``.
    """

    name: str
    address: str
    licence: str

    @property
    def question(self) -> str:
        found = terms(self.licence)
        use = "" if found.commercial else " Commercial use is not allowed."
        return f"{self.name} comes under {found.name}. {found.note}{use}"

    def refuse(self) -> NoReturn:
        raise SettingsError(
            f"the licence of {self.name} read and accepted",
            got=f"no --accept. {self.question}",
            hint="read the licence at its source, then give --accept",
        )


def plan(source: str, *, name: str | None = None, licence: str | None = None) -> Plan:
    """What adding ``source`` means, before anything is fetched.

    Raises:
        SettingsError: the name or the licence does not fit, or nobody stated a licence.
    """
    wanted = _checked(name or Path(source.rstrip("/").rsplit("/", 1)[-1]).stem)
    zoo = os.environ.get("RISORIUS_MODEL_ZOO") or ZOO_ADDRESS
    address = zoo.format(source) if source in ZOO else source
    stated = licence or (
        model_terms(source).licence if source in ZOO else model_terms(wanted).licence
    )
    return Plan(name=wanted, address=address, licence=_known(stated))


def add(home: Home, plan: Plan) -> Pack:
    """Bring a pack into ``models/<name>/`` of the home; whole or not at all.

    Only ONNX files are taken: they are data, and opening one runs no code of its maker's.
    The same files under the same name and terms once more change nothing.

    Raises:
        ModelError: no model in it that finds faces or tells people apart, or a damaged one.
        MediaError: the source cannot be fetched or unpacked.
        SettingsError: the name is taken.
    """
    draft = atomic.draft_path(home.models / plan.name)
    draft.mkdir(parents=True)
    try:
        _bring(plan.address, draft)
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
        if (there := _there(home, pack)) is not None:
            return there
        text = {key: value for key, value in asdict(pack).items() if key != "place"}
        (draft / RECORD).write_text(json.dumps(text, indent=1) + "\n")
        draft.rename(home.models / plan.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return pack


def _there(home: Home, pack: Pack) -> Pack | None:
    if not (home.models / pack.name / RECORD).is_file():
        return None
    there = read(home.models / pack.name)
    if there.sha256 == pack.sha256 and there.licence == pack.licence:
        return there
    raise SettingsError(
        f"a name other than {pack.name}",
        got="a pack of that name with other files or terms",
        hint=f"risorius models remove {pack.name} first, or give --name",
    )


def _bring(address: str, folder: Path) -> None:
    """The ONNX files of a file, a folder, an archive or a URL, side by side in ``folder``."""
    place = Path(address).expanduser()
    if download.is_address(address):
        download.fetch(address, folder / "fetched", {})
        place = next(path for path in (folder / "fetched").iterdir() if path.is_file())
    elif not place.exists():
        raise SettingsError(
            "a pack of the model zoo, an .onnx file, a folder, a ZIP archive or a URL",
            got=f"{address}, which is not there",
            hint=f"check the path; the zoo has {', '.join(ZOO)}",
        )
    if archive.is_archive(str(place)):
        archive.unpack(place, folder / "unpacked")
        place = folder / "unpacked"
    # Archives of the zoo hold their files below a folder, or not, from pack to pack.
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
        except Exception as error:  # the zoo asserts, onnxruntime has its own tree
            raise weights_error(path, error) from error
        found[path.name] = str(getattr(model, "taskname", "unknown"))
    if not set(found.values()) & set(TASKS):
        raise ModelError(
            "a model that finds faces or tells people apart",
            got=f"{len(files)} ONNX files in {source}, none of them such",
            hint=f"name a pack such as {ZOO[0]}, or one .onnx file of it",
        )
    return found


def _checked(name: str) -> str:
    if not NAME.match(name) or name in {pack.name for pack in shipped()}:
        raise SettingsError(
            "a name of letters, digits, dots and dashes that ships with nothing of ours",
            got=repr(name),
            hint="give --name",
        )
    return name


def _known(licence: str) -> str:
    found = terms(licence)
    if found.name == "unknown":
        raise SettingsError(
            f"a licence among {', '.join(one.name for one in LICENCES.values())}",
            got=repr(licence),
            hint="read the licence of these weights and give --licence",
        )
    return found.name
