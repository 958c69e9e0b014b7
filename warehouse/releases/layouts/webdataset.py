"""Write ``<split>-<nnnnn>.tar`` shards of a picture and a json per face."""

from __future__ import annotations

import io
import json
import tarfile
from itertools import chain, islice

import polars as pl

from warehouse.releases.layouts import pixels
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import without_nan
from warehouse.releases.schema import SPLITS
from warehouse.vocabulary import EXPRESSIONS


def write(export: Export) -> None:
    """Write the layout; a shard holds ``shard_faces`` faces."""
    rows = export.faces
    size = export.options.shard_faces
    for split in SPLITS:
        stems = dict(
            rows.filter(pl.col("split") == split).select("face_id", "stem").iter_rows()
        )  # fmt: skip
        columns = [name for name in rows.columns if name not in ("split", "stem", "suffix")]
        faces = (
            row
            for row in export.stream(export.files("data", split), ["image", *columns])
            if row["face_id"] in stems
        )
        shard_of: dict[str, str] = {}
        # One face is read ahead, so that no empty shard is opened.
        for number, first in enumerate(faces):
            name = f"{split}-{number:05d}.tar"
            with tarfile.open(export.path(name), "w", format=tarfile.USTAR_FORMAT) as tar:
                for row in chain((first,), islice(faces, size - 1)):
                    _add(tar, row, stems, export.options.size)
                    shard_of[row["face_id"]] = name
        known = rows.filter(pl.col("face_id").is_in(list(shard_of)))
        export.keep(known.with_columns(path=pl.col("face_id").replace_strict(shard_of)))


def _add(
    tar: tarfile.TarFile, row: dict[str, object], stems: dict[str, str], size: int | None
) -> None:
    image = row.pop("image")
    assert isinstance(image, dict)
    face, index = str(row["face_id"]), row["expression"]
    row["expression"] = EXPRESSIONS[index] if isinstance(index, int) else None
    suffix = "." + str(image["path"]).rpartition(".")[2]
    data = pixels.convert(image["bytes"], suffix, suffix, size=size)
    for name, body in (
        (f"{stems[face]}{suffix}", data),
        (f"{stems[face]}.json", json.dumps(without_nan(row)).encode()),
    ):
        info = tarfile.TarInfo(name)
        info.size = len(body)
        tar.addfile(info, io.BytesIO(body))


LAYOUT = Layout("webdataset", "tar shards with a picture and all columns per face", write)
