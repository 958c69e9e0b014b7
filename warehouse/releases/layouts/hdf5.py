"""Write one HDF5 file of encoded pictures per split."""

from __future__ import annotations

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.layouts import pixels
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe
from warehouse.releases.schema import SPLITS


def write(export: Export) -> None:
    """Write ``<name>_<split>.h5`` with ``images`` and ``face_id``.

    Raises:
        ReleaseError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ReleaseError(
            "The layout hdf5 needs h5py", got="it is not installed", hint="pip install h5py"
        ) from error
    import numpy as np

    rows, size = export.faces, export.options.size
    for split in SPLITS:
        wanted = set(rows.filter(pl.col("split") == split)["face_id"])
        if not wanted:
            continue
        name = f"{safe(str(export.contents['name']))}_{split}.h5"
        with h5py.File(export.path(name), "w") as file:
            count = len(wanted)
            images = file.create_dataset("images", (count,), dtype=h5py.vlen_dtype(np.uint8))
            ids = file.create_dataset("face_id", (count,), dtype=h5py.string_dtype())
            place = 0
            for row in export.stream(export.files("data", split), ["face_id", "image"]):
                if row["face_id"] not in wanted:
                    continue
                data = row["image"]["bytes"]
                if size is not None:
                    data = pixels.convert(data, "", ".jpg", size=size)
                images[place], ids[place] = np.frombuffer(data, np.uint8), row["face_id"]
                place += 1
        export.keep(rows.filter(pl.col("split") == split).with_columns(path=pl.lit(name)))


LAYOUT = Layout("hdf5", "encoded pictures without labels, for pre-training", write)
