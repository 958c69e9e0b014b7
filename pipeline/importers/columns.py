"""Read rows with a picture and a label: metadata files, Parquet, Hub, tar.

The columns of the label, the votes and what is declared of a picture are found by their usual
names (``warehouse.sidecar``), or by ``--label-column``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.importers.samples import (
    IMAGES,
    Dataset,
    Folder,
    Format,
    Sample,
    Vote,
    foreign,
    seats,
    split_of,
)
from pipeline.ingest import metadata
from warehouse import sidecar
from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 64
"""Rows of a table in memory: their pictures are in them."""

_TOLERANCE = 0.02
_PICTURES = ("image", "img", "picture", "pixel_values", "photo", "jpg", "png", "face")
_MAGIC = {
    b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"BM": ".bmp", b"RIFF": ".webp", b"GIF8": ".gif",
    b"II*\0": ".tif", b"MM\0*": ".tif", b"P5": ".pgm", b"P6": ".ppm",
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Which columns of a table mean what.

    Attributes:
        ours: column of the table to our name of it.
        classes: our name to the words that numbers of the column stand for.
    """

    ours: Mapping[str, str]
    classes: Mapping[str, Sequence[str]]

    @classmethod
    def match(
        cls,
        names: Sequence[str],
        dataset: Dataset,
        path: Path,
        classes: Mapping[str, Sequence[str]] | None = None,
    ) -> Columns:
        """Find the columns of a table.

        Args:
            classes: column to the words of its class numbers.

        Raises:
            SettingsError: the named column is missing, or two may be the label.
        """
        classes = classes or {}
        known = dict(sidecar.METADATA_COLUMNS) | {
            one: (one,) for one in ("valence", "arousal", "soft_label", "n_votes",
                                    "open_set_share", "face_id")
        }  # fmt: skip
        wanted = dataset.options.label_column
        plain = {name: sidecar.plain_name(name) for name in names}
        label = [name for name in names if plain[name] in known["label"]]
        if wanted is not None:
            label = [name for name in names if plain[name] == sidecar.plain_name(wanted)]
            if not label:
                raise SettingsError(
                    f"{path.name} has no such column",
                    got=f"{wanted!r}; it has {', '.join(names)[:300]}",
                    hint="correct --label-column",
                )
        elif not label and len(classes) == 1:
            label = [next(iter(classes))]
        if len(label) > 1 and "label" not in (plain[name] for name in label):
            raise SettingsError(
                f"{path.name} has several columns that may be the label",
                got=", ".join(label),
                hint="choose one with --label-column",
            )
        known["label"] = (plain[label[0]],) if len(label) == 1 else ("label",)
        rest = {key: value for key, value in known.items() if key != "label"}
        usable = [name for name in names if name not in label]
        ours, _ = sidecar.match_columns(usable, rest, path=path)
        ours |= {name: "label" for name in label if plain[name] in known["label"]}
        return cls(ours, {ours.get(name, name): words for name, words in classes.items()})

    def read(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row by our names, class numbers as words."""
        found = {ours: row[name] for name, ours in self.ours.items() if name in row}
        for name, words in self.classes.items():
            number = found.get(name)
            if isinstance(number, int) and 0 <= number < len(words):
                found[name] = words[number]
        return found


def sample(
    row: Mapping[str, Any],
    name: str,
    table: Path,
    number: int,
    *,
    split: str | None,
    path: Path | None = None,
    data: bytes | None = None,
    votes: tuple[Vote, ...] | None = None,
) -> Sample:
    """Return the sample of a row by our column names."""
    facts = {key: str(row[key]).strip() or None for key in ("subject_id", "licence", "consent")
             if row.get(key) is not None}  # fmt: skip
    stated = row.get("split")
    return Sample(
        name,
        votes if votes is not None else _votes(row, name, table, number),
        path=path,
        data=data,
        split=split or (split_of(stated) if isinstance(stated, str) else None),
        subject=facts.get("subject_id"),
        licence=facts.get("licence"),
        consent=facts.get("consent"),
    )


def _votes(row: Mapping[str, Any], name: str, table: Path, number: int) -> tuple[Vote, ...]:
    mood: dict[str, Any] = {key: _mood(row.get(key)) for key in ("valence", "arousal")}
    if row.get("votes"):
        counted = metadata.counts(row["votes"], path=table, number=number)
        return seats(counted, name=name)
    if counted := _counts(row):
        return tuple(Vote(one.rater, one.labels, **mood) for one in seats(counted, name=name))
    label = row.get("label")
    words = tuple(str(one) for one in label) if isinstance(label, list) else (
        () if label is None or str(label).strip() == "" else (str(label),)
    )  # fmt: skip
    rater = str(row["rater_id"]) if row.get("rater_id") else "label"
    return (Vote(rater, words, **mood),)


def _counts(row: Mapping[str, Any]) -> dict[str, int]:
    """Return the votes that a released soft label is made of, if it tells.

    With each rater's vote counting 1 the shares are whole numbers of votes.
    """
    shares, number = row.get("soft_label"), row.get("n_votes")
    if not isinstance(shares, list) or len(shares) != len(EXPRESSIONS) or not number:
        return {}
    closed = number * (1 - (row.get("open_set_share") or 0.0))
    exact = [float(share or 0) * closed for share in shares]
    counts = [round(value) for value in exact]
    if any(abs(a - b) > _TOLERANCE for a, b in zip(exact, counts, strict=True)):
        return {}
    open_votes = number - sum(counts)
    found = dict(zip(EXPRESSIONS, counts, strict=True)) | {"unknown": open_votes}
    return {label: count for label, count in found.items() if count > 0}


def _mood(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and -1 <= value <= 1 else None


def suffix_of(data: bytes) -> str | None:
    """Return the file type of an encoded picture, None for anything else."""
    found = next((end for magic, end in _MAGIC.items() if data.startswith(magic)), None)
    if found is None and data[4:8] == b"ftyp":
        return ".avif" if data[8:12] in (b"avif", b"avis") else ".heic"
    return found


# Metadata beside the pictures


def _identify_metadata(folder: Folder) -> str | None:
    found = [name for name in metadata.NAMES if (folder.path / name).is_file()]
    return f"{found[0]} lies in the folder" if found else None


def _read_metadata(dataset: Dataset) -> Iterator[Sample]:
    found = metadata.read(
        dataset.path, words=dataset.words, label_column=dataset.options.label_column
    )
    dataset.notes += found.notes
    for word, number in found.unknown.items():
        for _ in range(number):
            dataset.leave("labels that are no answer", word)
    votes: dict[str, list[Vote]] = {}
    for vote in found.votes:
        one = Vote(vote.rater, vote.answers, at=vote.at, answered=True)
        votes.setdefault(vote.file_name, []).append(one)
    listed = set(found.files)
    extra = (
        dataset.name_of(path)
        for path in dataset.folder.pictures(deep=True)
        if dataset.name_of(path) not in listed
    )
    for name in (*found.files, *extra):
        facts = found.files.get(name, {})
        yield Sample(
            name, tuple(votes.get(name, ())), path=dataset.path / name,
            subject=facts.get("subject_id"), licence=facts.get("licence"),
            consent=facts.get("consent"), split=split_of(found.splits.get(name)),
        )  # fmt: skip


def _nested(folder: Folder) -> list[Path]:
    return [path for path in folder.find(*metadata.NAMES) if path.parent != folder.path]


def _identify_nested(folder: Folder) -> str | None:
    found = _nested(folder)
    return f"{found[0].parent.name}/{found[0].name} lies beside its pictures" if found else None


def _read_nested(dataset: Dataset) -> Iterator[Sample]:
    for table in _nested(dataset.folder):
        raw = metadata.raw_rows(table)
        columns = Columns.match(list(dict.fromkeys(k for row in raw for k in row)), dataset, table)
        for number, given in enumerate(raw, start=1):
            row = columns.read(given)
            file = str(row.get("file_name") or "")
            if not file:
                raise foreign(table, got=f"row {number} without file_name", what="a metadata file")
            path = dataset.folder.locate(file, table.parent)
            name = dataset.name_of(path) if path else f"{dataset.name_of(table.parent)}/{file}"
            yield sample(
                row, name, table, number, split=split_of(table.parent.name), path=path
            )  # fmt: skip


# Arrow and Parquet


def _identify_hub(folder: Folder) -> str | None:
    for path in folder.find("dataset_dict.json", "state.json"):
        return f"{path.name} of `datasets` save_to_disk"
    return None


def _read_hub(dataset: Dataset) -> Iterator[Sample]:
    import pyarrow as pa

    for state in dataset.folder.find("state.json"):
        features = _json(state.with_name("dataset_info.json")).get("features") or {}
        split = split_of(_json(state).get("_split") or state.parent.name)
        for file in _json(state).get("_data_files") or []:
            path = state.parent / str(file["filename"])
            try:
                with pa.memory_map(str(path)) as mapped:
                    reader = pa.ipc.open_stream(mapped)
                    batches = (
                        batch.slice(start, _ROWS)
                        for batch in reader
                        for start in range(0, batch.num_rows, _ROWS)
                    )
                    yield from _rows(dataset, path, batches, reader.schema, features, split)
            except (OSError, pa.ArrowInvalid) as error:
                raise foreign(path, got=str(error).splitlines()[0], what="an Arrow file") \
                    from None  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise foreign(path, got=str(error), what="a file of `datasets`") from None
    return found if isinstance(found, dict) else {}


def _tables(folder: Folder) -> list[Path]:
    found = []
    for path in folder.ending(".parquet"):
        if path.name in metadata.NAMES:
            continue
        schema = _schema(path)
        if schema is not None and _picture(schema) is not None:
            found.append(path)
    return found


def _schema(path: Path) -> pa.Schema | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowInvalid):
        return None


def _picture(schema: pa.Schema) -> str | None:
    """Return the column that holds encoded pictures."""
    import pyarrow as pa

    def holds(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found = [field.name for field in schema if holds(field.type)]
    named = [name for name in found if sidecar.plain_name(name) in _PICTURES]
    return next(iter([*named, *found]), None)


def _identify_parquet(folder: Folder) -> str | None:
    found = _tables(folder)
    return f"{found[0].name} holds pictures in a column" if found else None


def _read_parquet(dataset: Dataset) -> Iterator[Sample]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    given = _released_votes(dataset.folder)
    tables = _tables(dataset.folder)
    if given:
        tables = [path for path in tables if path.parent.name in ("data", dataset.path.name)]
    for path in tables:
        try:
            opened = pq.ParquetFile(path)
            schema = opened.schema_arrow
            stated = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
            features = (stated.get("info") or {}).get("features") or {}
            split = split_of(path.stem.partition("-")[0]) or split_of(path.parent.name)
            batches = opened.iter_batches(batch_size=_ROWS)
            yield from _rows(dataset, path, batches, schema, features, split, given)
        except (OSError, pa.ArrowInvalid, ValueError) as error:
            raise foreign(path, got=str(error).splitlines()[0], what="a Parquet file") \
                from None  # fmt: skip


def _rows(
    dataset: Dataset,
    path: Path,
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    features: Mapping[str, Any],
    split: str | None,
    given: Mapping[str, tuple[Vote, ...]] | None = None,
) -> Iterator[Sample]:
    """Yield the samples of record batches."""
    picture = _picture(schema)
    if picture is None:
        raise foreign(path, got=f"columns {', '.join(schema.names)[:200]}",
                      what="a table of pictures")  # fmt: skip
    classes = {
        name: [str(word) for word in one["names"]]
        for name, one in features.items()
        if isinstance(one, dict) and one.get("names")
    }
    names = [name for name in schema.names if name != picture]
    columns = Columns.match(names, dataset, path, classes)
    shard = dataset.name_of(path.with_suffix("")).replace("/", "-")
    wanted = [picture, *columns.ours]
    number = 0
    for batch in batches:
        for raw in batch.select(wanted).to_pylist():
            row, cell = columns.read(raw), raw[picture]
            number += 1
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            file = cell.get("path") if isinstance(cell, dict) else None
            name = f"{shard}/{number:07d}"
            votes = given.get(str(row.get("face_id"))) if given else None
            if data is None and file:
                found = dataset.folder.locate(str(file), path.parent, dataset.path)
                yield sample(row, dataset.name_of(found) if found else str(file), path, number,
                             split=split, path=found, votes=votes)  # fmt: skip
                continue
            suffix = suffix_of(data) if data else None
            if data is None or suffix is None:
                dataset.leave("rows without a picture", f"{path.name} row {number}")
                continue
            yield sample(row, name + suffix, path, number, split=split, data=data, votes=votes)


def _released_votes(folder: Folder) -> dict[str, tuple[Vote, ...]]:
    """Return the votes by face of a release's own ``votes`` files."""
    import polars as pl

    files = [path for path in folder.ending(".parquet") if path.parent.name == "votes"]
    found: dict[str, tuple[Vote, ...]] = {}
    for path in files:
        frame = pl.read_parquet(path, glob=False)
        if not {"face_id", "rater_id", "expressions"} <= set(frame.columns):
            return {}
        for row in frame.iter_rows(named=True):
            if row.get("was_cancelled"):
                continue
            units = tuple((one["unit"], one["intensity"]) for one in row.get("au") or ())
            labels = row.get("compounds") or row["expressions"] or ()
            vote = Vote(row["rater_id"], tuple(labels), at=row.get("updated_at"),
                        valence=row.get("valence"), arousal=row.get("arousal"),
                        units=units)  # fmt: skip
            found[row["face_id"]] = (*found.get(row["face_id"], ()), vote)
    return found


# Tar shards


def _identify_tar(folder: Folder) -> str | None:
    found = folder.ending(".tar")
    return f"{found[0].name} is a shard" if found else None


def _read_tar(dataset: Dataset) -> Iterator[Sample]:
    import tarfile

    for path in dataset.folder.ending(".tar"):
        split = split_of(path.stem.partition("-")[0]) or split_of(path.parent.name)
        try:
            with tarfile.open(path, "r|") as shard:
                yield from _members(dataset, path, shard, split)
        except (OSError, tarfile.TarError, EOFError) as error:
            raise foreign(path, got=str(error), what="a whole tar file") from None


def _members(dataset: Dataset, path: Path, shard: Any, split: str | None) -> Iterator[Sample]:
    """Yield the samples of a shard; files of one stem belong together."""
    # Shards of two splits may have one name.
    place, stem, parts = dataset.name_of(path.with_suffix("")), "", dict[str, bytes]()
    columns: Columns | None = None
    number = 0
    for member in (*_each(shard), ("", "", b"")):
        name, suffix, data = member
        if name != stem and parts:
            number += 1
            row = _row_of(parts, path)
            columns = columns or Columns.match(list(row), dataset, path)
            picture = next((end for end in parts if end in IMAGES), None)
            if picture is None:
                dataset.leave("rows without a picture", f"{path.name} {stem}")
            else:
                yield sample(columns.read(row), f"{place}/{stem}{picture}", path, number,
                             split=split, data=parts[picture])  # fmt: skip
            parts = {}
        stem = name
        if name:
            parts[suffix] = data


def _each(shard: Any) -> Iterator[tuple[str, str, bytes]]:
    for member in shard:
        pure = PurePosixPath(member.name)
        if member.isfile() and not pure.name.startswith("."):
            top, _, suffix = pure.name.partition(".")
            handle = shard.extractfile(member)
            yield str(pure.with_name(top)), f".{suffix.lower()}", handle.read() if handle else b""


def _row_of(parts: Mapping[str, bytes], path: Path) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(parts[".json"]) if ".json" in parts else {}
        for suffix in (".cls", ".txt"):
            if suffix in parts:
                row.setdefault("label", parts[suffix].decode().strip())
    except ValueError as error:
        raise foreign(path, got=str(error), what="a shard of pictures and json") from None
    return row


METADATA = Format(
    "metadata",
    "metadata.(csv|jsonl|parquet) with label, votes, or rater_id and label",
    _identify_metadata,
    _read_metadata,
    over=("imagefolder",),
)
NESTED = Format(
    "folder",
    "folders of pictures, each with its metadata.(csv|jsonl|parquet)",
    _identify_nested,
    _read_nested,
    over=("imagefolder",),
    layouts=("folder",),
)
HUB = Format("hub", "a Hub dataset saved by `datasets` save_to_disk", _identify_hub, _read_hub)
PARQUET = Format(
    "parquet",
    "Parquet files with a column of encoded pictures; a release of this project",
    _identify_parquet,
    _read_parquet,
)
WEBDATASET = Format(
    "webdataset", "tar shards of pictures and json or cls", _identify_tar, _read_tar,
    layouts=("webdataset",),
)  # fmt: skip
