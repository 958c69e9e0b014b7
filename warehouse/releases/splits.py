"""Assign rows to train, validation and test by data subject."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

from warehouse.releases.schema import SPLITS, SYNTHETIC

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}

CONFLICT = "split_conflict"
"""Reason code of a row that connects subjects whom an earlier version put in two splits."""

_SIMILAR = ("own", "original", "near")
"""Nodes of near duplicates: a face that others repeat, the face repeated, a chain of pairs."""


@dataclass(frozen=True)
class Assignment:
    """Rows with their splits.

    Attributes:
        rows: the assigned rows, with a column ``split``.
        conflicts: rows that fit no split, because an earlier version divided their group.
        members: ``subject`` and ``video`` to id to split, for the next version.
        leaks: groups of a subject or of near duplicates for which a data set declares several
            splits, one sentence each.
    """

    rows: pl.DataFrame
    conflicts: pl.DataFrame
    members: dict[str, dict[str, str]]
    leaks: tuple[str, ...] = ()


def assign(
    rows: pl.DataFrame,
    *,
    earlier: Mapping[str, Mapping[str, str]],
    declared: Mapping[str, str] | None = None,
) -> Assignment:
    """Give every row a split.

    Subjects, videos and near duplicates form groups, and a group is in one split. The splits of
    ``earlier`` win, then those that data sets declare; a group with several of these goes to the
    one that most of its rows have. Other new groups are assigned in the order of their hash, each
    to the split that lacks most of its share (80/10/10 of the rows), starting with train. An empty
    test or validation split then takes the smallest new group of train, if train keeps more than
    half of the rows. Synthetic faces go to train. One that repeats a face of another split, or
    edits one of a subject who is not in train, is left out.

    A subject id must mean the same person in every version. An id that changes hands connects
    subjects of different splits, and their rows become conflicts.

    Args:
        rows: ``face_id, subject_id, video_id, duplicate_of``, and optionally ``near_group`` and
            ``source``.
        earlier: ``members`` of the version before, or an empty mapping.
        declared: video to the split that its data set declares.
    """
    made = _is_synthetic(rows)
    synthetic = rows.filter(made)
    real = _assign_real(rows.filter(~made), earlier=earlier, declared=declared or {})
    if synthetic.is_empty():
        return real
    originals = [real.rows.select(pl.col(name).alias("duplicate_of"), "split").drop_nulls()
                 for name in ("face_id", "duplicate_of")]  # fmt: skip
    held_out = pl.concat(originals).filter(pl.col("split") != "train")["duplicate_of"]
    repeats = pl.col("duplicate_of").is_in(held_out.implode()).fill_null(False)
    edits = pl.lit(False)
    for kind, names in real.members.items():
        in_train = [name for name, split in names.items() if split == "train"]
        origin = pl.col(f"{kind}_id")
        edits |= origin.is_not_null() & ~origin.is_in(
            pl.Series(in_train, dtype=pl.String).implode()
        )
    unfit = repeats | edits
    return Assignment(
        rows=pl.concat(
            [real.rows, synthetic.filter(~unfit).with_columns(split=pl.lit("train"))]
        ).sort("face_id"),
        conflicts=pl.concat([real.conflicts, synthetic.filter(unfit)]).sort("face_id"),
        members=real.members,
        leaks=real.leaks,
    )


def _is_synthetic(rows: pl.DataFrame) -> pl.Expr:
    """Match synthetic faces: those without a subject, and edits of a face."""
    without = pl.col("subject_id").is_null()
    return without | (pl.col("source") == "synthetic") if "source" in rows.columns else without


def check(rows: pl.DataFrame) -> list[str]:
    """List leaks between splits, one sentence each; empty if there is none.

    Args:
        rows: ``face_id, subject_id, video_id, duplicate_of, split``, and optionally ``source``.
            Synthetic faces in a config of their own count as train.
    """
    rows = rows.with_columns(pl.col("split").replace(SYNTHETIC, "train"))
    synthetic = rows.filter(_is_synthetic(rows) & (pl.col("split") != "train"))
    leaks = [f"synthetic face {face} is not in train" for face in synthetic["face_id"].sort()]
    copies = rows.filter(pl.col("duplicate_of").is_not_null()).select("duplicate_of", "split")
    originals = rows.select("face_id", "split").rename({"face_id": "duplicate_of"})
    originals = originals.join(copies, on="duplicate_of", how="semi")
    for frame, column, text in (
        (rows, "subject_id", "subject {} is"),
        (rows, "video_id", "video {} is"),
        (pl.concat([copies, originals]), "duplicate_of", "near duplicates of face {} are"),
    ):
        leaking = (
            frame.filter(pl.col(column).is_not_null())
            .group_by(column)
            .agg(pl.col("split").unique().sort())
            .filter(pl.col("split").list.len() > 1)
            .sort(column)
        )
        leaks += [
            f"{text.format(name)} in {' and '.join(found)}" for name, found in leaking.iter_rows()
        ]
    return leaks


def components(rows: pl.DataFrame) -> pl.Series:
    """Return the connected group of each row.

    Subjects, videos and near duplicates connect rows.

    Args:
        rows: ``face_id, subject_id, video_id, duplicate_of``. A row without a subject is a group
            of its own.
    """
    real = rows.filter(pl.col("subject_id").is_not_null())
    groups = _Groups({})
    for left, right in _edges(real):
        groups.union(left, right)
    roots = {subject: groups.find(f"subject {subject}") for subject in real["subject_id"].unique()}
    named = pl.col("subject_id").replace_strict(roots, default=None, return_dtype=pl.String)
    return rows.select(group=pl.coalesce(named, "face " + pl.col("face_id"))).to_series()


def _assign_real(
    rows: pl.DataFrame,
    *,
    earlier: Mapping[str, Mapping[str, str]],
    declared: Mapping[str, str],
) -> Assignment:
    groups = _Groups(
        {
            f"{kind} {name}": split
            for kind, names in sorted(earlier.items())
            for name, split in sorted(names.items())
        }
    )
    for left, right in _edges(rows):
        groups.union(left, right)
    nodes = rows.select("face_id", *_nodes(rows))
    leaks = _fix_declared(groups, nodes, declared) if declared else ()
    _fill(groups, _sizes(groups, nodes))
    split_of = {node: groups.split(node) for node in groups.parent}
    named = nodes.with_columns(
        pl.col("subject", "video", *_SIMILAR).replace_strict(split_of, default=None)
    )
    consistent = pl.all_horizontal(
        pl.col("subject") == pl.col("video"),
        *(pl.col(name).is_null() | (pl.col(name) == pl.col("video")) for name in _SIMILAR),
    )
    split = named.select(split=pl.when(consistent).then(pl.col("video"))).to_series()
    assigned = rows.with_columns(split)
    kept = assigned.filter(pl.col("split").is_not_null())
    return Assignment(
        rows=kept,
        conflicts=assigned.filter(pl.col("split").is_null()).drop("split"),
        members=_members(kept, earlier),
        leaks=leaks,
    )


def _fix_declared(
    groups: _Groups, nodes: pl.DataFrame, declared: Mapping[str, str]
) -> tuple[str, ...]:
    """Fix the declared split of each group without one; return the leaks."""
    counts: dict[str, dict[str, int]] = {}
    named: dict[str, str] = {}
    counted = nodes.group_by("video", "subject").len().sort("video", "subject")
    for video, subject, n in counted.iter_rows():
        if (split := declared.get(str(video).removeprefix("video "))) is None:
            continue
        root = groups.find(video)
        found = counts.setdefault(root, {})
        found[split] = found.get(split, 0) + n
        named[root] = min(str(subject), named.get(root, str(subject)))
    leaks = []
    for root, found in sorted(counts.items()):
        most = max(found, key=lambda split: (found[split], split))
        if len(found) > 1:
            listed = " and ".join(f"{split} ({n})" for split, n in sorted(found.items()))
            leaks.append(f"{named[root]} and its copies are declared in {listed}")
        if root not in groups.fixed:
            groups.fixed[root] = most
    return tuple(leaks)


@dataclass
class _Groups:
    """Union-find that never merges two groups with different fixed splits."""

    fixed: dict[str, str]
    parent: dict[str, str] = field(default_factory=dict)

    def find(self, node: str) -> str:
        self.parent.setdefault(node, node)
        while self.parent[node] != node:
            self.parent[node] = self.parent[self.parent[node]]
            node = self.parent[node]
        return node

    def split(self, node: str) -> str | None:
        return self.fixed.get(self.find(node))

    def union(self, left: str, right: str) -> None:
        one, two = sorted((self.find(left), self.find(right)))
        splits = {self.fixed[root] for root in (one, two) if root in self.fixed}
        if one == two or len(splits) > 1:
            return
        self.parent[two] = one
        if splits:
            self.fixed[one] = splits.pop()


def _nodes(rows: pl.DataFrame) -> tuple[pl.Expr, ...]:
    original = pl.col("duplicate_of")
    near = pl.col("near_group") if "near_group" in rows.columns else pl.lit(None, pl.String)
    repeated = pl.col("face_id").is_in(original.drop_nulls().unique().implode())
    return (
        ("subject " + pl.col("subject_id")).alias("subject"),
        ("video " + pl.col("video_id")).alias("video"),
        pl.when(repeated).then("face " + pl.col("face_id")).alias("own"),
        ("face " + original).alias("original"),
        ("near " + near).alias("near"),
    )


def _edges(rows: pl.DataFrame) -> Iterable[tuple[str, str]]:
    """Yield pairs of nodes by descending row count.

    A conflict then costs the fewest rows.
    """
    nodes = rows.select(*_nodes(rows))
    pairs = (
        nodes.group_by("subject", "video")
        .len()
        .sort("len", "subject", "video", descending=[True, False, False])
    )
    yield from pairs.select("subject", "video").iter_rows()
    for column in _SIMILAR:
        pairs = nodes.select("video", column).drop_nulls().unique().sort("video", column)
        yield from pairs.iter_rows()


def _sizes(groups: _Groups, nodes: pl.DataFrame) -> dict[str, int]:
    """Return the number of rows of each group by its root."""
    sizes: dict[str, int] = {}
    for video, n in nodes.group_by("video").len().sort("video").iter_rows():
        root = groups.find(video)
        sizes[root] = sizes.get(root, 0) + n
    return sizes


def _fill(groups: _Groups, sizes: Mapping[str, int]) -> None:
    """Fix a split for every group that has none."""
    rows = dict.fromkeys(SPLITS, 0)
    for root, size in sizes.items():
        if root in groups.fixed:
            rows[groups.fixed[root]] += size
    new = sorted((root for root in sizes if root not in groups.fixed), key=_hash)
    total = sum(sizes.values())
    for root in new:
        lacking = {split: SHARES[split] * total - rows[split] for split in SPLITS}
        # On a tie, fill test before validation: a test score matters more.
        split = max(("train", "test", "validation"), key=lambda name: lacking[name])
        if not rows["train"]:
            split = "train"
        groups.fixed[root] = split
        rows[split] += sizes[root]
    for split in ("test", "validation"):
        movable = [root for root in new if groups.fixed[root] == "train"]
        if rows[split] or not movable:
            continue
        smallest = min(movable, key=lambda root: (sizes[root], _hash(root)))
        if 2 * (rows["train"] - sizes[smallest]) > total:
            groups.fixed[smallest] = split
            rows["train"] -= sizes[smallest]
            rows[split] += sizes[smallest]


def _hash(node: str) -> str:
    return hashlib.sha256(node.encode()).hexdigest()


def _members(
    rows: pl.DataFrame, earlier: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    members: dict[str, dict[str, str]] = {}
    for kind, column in (("subject", "subject_id"), ("video", "video_id")):
        found = dict(rows.select(column, "split").unique().iter_rows())
        # Subjects absent from this version keep their split for the next one.
        members[kind] = dict(sorted({**earlier.get(kind, {}), **found}.items()))
    return members
