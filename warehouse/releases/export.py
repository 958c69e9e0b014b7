"""Export a version as a folder of images or as WebDataset shards."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from warehouse.errors import ReleaseError
from warehouse.releases import verification, versions
from warehouse.releases.schema import CONFIGS, SPLITS
from warehouse.storage.home import Home
from warehouse.vocabulary import EXPRESSIONS

LAYOUTS = ("folder", "webdataset")


def export(
    home: str | Path | Home | None = None,
    *,
    name: str,
    to: str | Path,
    version: str | int = "latest",
    layout: str = "folder",
    shard_faces: int = 5000,
) -> dict[str, int]:
    """Write the faces and the card of a version into the new folder ``to``.

    ``folder``: ``<split>/<face_id>.<png|jpg>`` and ``<split>/metadata.jsonl``, which `datasets`
    reads as imagefolder. ``webdataset``: ``<split>-<nnnnn>.tar`` with ``shard_faces`` faces each,
    an image and a ``.json`` per face. Both hold every column; ``expression`` is a name or null.

    An erasure does not reach the exported copy. Delete it yourself.

    Returns:
        rows per split.

    Raises:
        ReleaseError: there is no such version or layout, it was changed after it was built, or
            ``to`` is not empty.
    """
    if layout not in LAYOUTS:
        raise ReleaseError(
            f"The layout is not one of {', '.join(LAYOUTS)}",
            got=repr(layout),
            hint="choose one of them",
        )
    path, target = versions.resolve(Home.at(home), name, version), Path(to).expanduser()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ReleaseError(
            "The target is not a new or empty folder", got=str(to), hint="empty or rename it"
        )
    verification.check(path, CONFIGS["default"], "README.md")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".{target.name}-{uuid.uuid4().hex}"
    draft.mkdir()
    try:
        shutil.copy(path / "README.md", draft / "README.md")
        write = _write_folder if layout == "folder" else partial(_write_tars, size=shard_faces)
        counts = {split: write(draft, path, split) for split in SPLITS}
        if target.is_dir():
            target.rmdir()
        draft.rename(target)
    except OSError as error:
        raise ReleaseError(
            f"{to} cannot be written",
            got=error.strerror or str(error),
            hint="free space or choose another folder; the release is untouched",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {split: n for split, n in counts.items() if n}


def _write_folder(draft: Path, path: Path, split: str) -> int:
    folder, lines = draft / split, []
    for file, data, columns in _faces(path, split):
        folder.mkdir(exist_ok=True)
        (folder / file).write_bytes(data)
        lines.append(json.dumps({"file_name": file} | columns))
    if lines:
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return len(lines)


def _write_tars(draft: Path, path: Path, split: str, *, size: int) -> int:
    faces = _faces(path, split)
    count = 0
    # One face is read ahead, so that no empty shard is opened.
    for first in faces:
        name = draft / f"{split}-{count // size:05d}.tar"
        with tarfile.open(name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for file, data, columns in (first, *islice(faces, size - 1)):
                stem = file.rpartition(".")[0]
                for member, body in (
                    (file, data),
                    (f"{stem}.json", json.dumps(columns).encode()),
                ):
                    info = tarfile.TarInfo(member)
                    info.size = len(body)
                    tar.addfile(info, io.BytesIO(body))
                count += 1
    return count


def _faces(path: Path, split: str) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Yield file name, bytes and columns of each face, in release order.

    Dots in a face id become dashes: a WebDataset reader ends the stem at the first dot.
    """
    import pyarrow.parquet as pq

    for file in sorted((path / "data").glob(f"{split}-*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                image, index = row.pop("image"), row["expression"]
                row["expression"] = None if index is None else EXPRESSIONS[index]
                suffix = Path(image["path"]).suffix
                columns = {name: _without_nan(value) for name, value in row.items()}
                yield row["face_id"].replace(".", "-") + suffix, image["bytes"], columns


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON lacks, by None."""
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and value != value else value
