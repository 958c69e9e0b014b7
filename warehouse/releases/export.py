"""A version for tools that read neither Parquet nor ``datasets``: a plain folder, or WebDataset."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from warehouse.errors import ReleaseError
from warehouse.releases import versions
from warehouse.releases.schema import SPLITS
from warehouse.storage.home import Home
from warehouse.vocabulary import EXPRESSIONS

LAYOUTS = ("folder", "webdataset")
_Put = Callable[[str, bytes, dict[str, Any]], None]


def export(
    home: str | Path | Home | None = None,
    *,
    name: str,
    to: str | Path,
    version: str | int = "latest",
    layout: str = "folder",
    shard_faces: int = 5000,
) -> dict[str, int]:
    """Write the faces of a version into the new folder ``to``, with the card; rows per split.

    ``folder``: ``<split>/<face_id>.<png|jpg>`` and ``<split>/metadata.jsonl``, which `datasets`
    (imagefolder) reads. ``webdataset``: ``<split>-<nnnnn>.tar`` of ``shard_faces`` each, a picture
    and a ``.json`` of the same stem. Both carry every column; ``expression`` is a name or null.

    A copy outside the home is out of reach when somebody leaves: delete it then.

    Raises:
        ReleaseError: no such version or layout, or ``to`` holds something already.
    """
    if layout not in LAYOUTS:
        raise ReleaseError(
            f"a layout among {', '.join(LAYOUTS)}", got=repr(layout), hint="choose one of them"
        )
    path, target = versions.resolve(Home.at(home), name, version), Path(to).expanduser()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ReleaseError(
            "a folder that is new or empty", got=str(to), hint="name another, or empty it"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".{target.name}-{uuid.uuid4().hex}"
    draft.mkdir()
    try:
        shutil.copy(path / "README.md", draft / "README.md")
        writer = _folder if layout == "folder" else partial(_tars, size=shard_faces)
        counts = {split: writer(draft, path, split) for split in SPLITS}
        if target.is_dir():
            target.rmdir()
        draft.rename(target)
    except OSError as error:
        raise ReleaseError(
            f"room and the right to write {to}",
            got=error.strerror or str(error),
            hint="free space or name another folder; the release is untouched",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {split: n for split, n in counts.items() if n}


def _folder(draft: Path, path: Path, split: str) -> int:
    folder, lines = draft / split, []
    for file, data, facts in _faces(path, split):
        folder.mkdir(exist_ok=True)
        (folder / file).write_bytes(data)
        lines.append(json.dumps({"file_name": file} | facts))
    if lines:
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return len(lines)


def _tars(draft: Path, path: Path, split: str, *, size: int) -> int:
    count = 0
    faces = _faces(path, split)
    for first in faces:
        with _shard(draft / f"{split}-{count // size:05d}.tar") as put:
            put(*first)
            count += 1
            while count % size and (following := next(faces, None)):
                put(*following)
                count += 1
    return count


@contextmanager
def _shard(path: Path) -> Iterator[_Put]:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:

        def put(file: str, data: bytes, facts: dict[str, Any]) -> None:
            stem, _, _ = file.rpartition(".")
            for member, body in ((file, data), (f"{stem}.json", json.dumps(facts).encode())):
                info = tarfile.TarInfo(member)
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))

        yield put


def _faces(path: Path, split: str) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """File name, bytes and columns of each face, in the order of the release.

    A dot in a face's id would end the stem of a WebDataset member: it becomes a dash there.
    """
    import pyarrow.parquet as pq

    for file in sorted((path / "data").glob(f"{split}-*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                image, index = row.pop("image"), row["expression"]
                row["expression"] = None if index is None else EXPRESSIONS[index]
                suffix = Path(image["path"]).suffix
                yield row["face_id"].replace(".", "-") + suffix, image["bytes"], _plain(row)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Without NaN, which JSON does not know."""

    def hint(value: Any) -> Any:
        if isinstance(value, list):
            return [hint(one) for one in value]
        return None if isinstance(value, float) and value != value else value

    return {name: hint(value) for name, value in row.items()}
