"""Train, validation and test by person: never by frame, and the same in every version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.schema import SPLITS

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}

_LIKE = ("own", "twin", "near")
"""Nodes of faces that look alike: one that others repeat, the one repeated, a chain's."""

CONFLICT = "split_conflict"
"""Why a row is left out: it ties together people whom earlier versions put in two splits."""


@dataclass(frozen=True)
class Assignment:
    """Who is in which split.

    Attributes:
        rows: the rows that can stay, with a ``split`` column.
        conflicts: the rows that cannot, because an earlier version already divided them.
        members: ``subject`` and ``video`` to id to split; the memory of the next version.
    """

    rows: pl.DataFrame
    conflicts: pl.DataFrame
    members: dict[str, dict[str, str]]


def assign(rows: pl.DataFrame, *, earlier: Mapping[str, Mapping[str, str]]) -> Assignment:
    """Give every row a split.

    Subjects, videos and near duplicates are tied into groups; a group is in one split. What
    ``earlier`` says wins. New groups come in the order of their hash, each to the split that
    lacks most of its share (80/10/10 of the rows), and train before any other. A split that stays
    empty then takes the smallest new group of train, if train keeps more than half of the rows.
    Ids must mean the same person in every version: a subject id that changes hands would tie
    people together whom ``earlier`` divides, and their rows would be left out. Made faces, which
    have no subject, train and nothing else; one that repeats a face of another split is left out.

    Args:
        rows: ``face_id, subject_id, video_id, duplicate_of``, and ``near_group`` if it is known.
        earlier: ``members`` of the version before, or an empty mapping.
    """
    made = rows.filter(pl.col("subject_id").is_null())
    found = _assign(rows.filter(pl.col("subject_id").is_not_null()), earlier=earlier)
    if made.is_empty():
        return found
    twins = [found.rows.select(pl.col(name).alias("duplicate_of"), "split").drop_nulls()
             for name in ("face_id", "duplicate_of")]  # fmt: skip
    elsewhere = pl.concat(twins).filter(pl.col("split") != "train")
    fit = made.join(elsewhere, on="duplicate_of", how="anti").with_columns(split=pl.lit("train"))
    unfit = made.join(elsewhere, on="duplicate_of", how="semi")
    return Assignment(
        rows=pl.concat([found.rows, fit]).sort("face_id"),
        conflicts=pl.concat([found.conflicts, unfit]).sort("face_id"),
        members=found.members,
    )


def _assign(rows: pl.DataFrame, *, earlier: Mapping[str, Mapping[str, str]]) -> Assignment:
    groups = _Groups(
        {
            f"{kind} {name}": split
            for kind, names in sorted(earlier.items())
            for name, split in sorted(names.items())
        }
    )
    for left, right in _ties(rows):
        groups.tie(left, right)
    nodes = rows.select("face_id", *_nodes(rows))
    sizes = _sizes(groups, nodes)
    _fill(groups, sizes)
    split_of = {node: groups.split(node) for node in groups.parent}
    named = nodes.with_columns(
        pl.col("subject", "video", *_LIKE).replace_strict(split_of, default=None)
    )
    whole = pl.all_horizontal(
        pl.col("subject") == pl.col("video"),
        *(pl.col(name).is_null() | (pl.col(name) == pl.col("video")) for name in _LIKE),
    )
    marked = rows.with_columns(named.select(split=pl.when(whole).then(pl.col("video"))).to_series())
    kept = marked.filter(pl.col("split").is_not_null())
    return Assignment(
        rows=kept,
        conflicts=marked.filter(pl.col("split").is_null()).drop("split"),
        members=_members(kept, earlier),
    )


def check(rows: pl.DataFrame) -> list[str]:
    """Leaks between splits, one sentence each; empty when there is none.

    Args:
        rows: ``face_id, subject_id, video_id, duplicate_of, split``.
    """
    made = rows.filter(pl.col("subject_id").is_null() & (pl.col("split") != "train"))
    leaks = [f"made face {face} is not in train" for face in made["face_id"].sort()]
    for column, what in (("subject_id", "subject"), ("video_id", "video")):
        spread = (
            rows.filter(pl.col(column).is_not_null())
            .group_by(column)
            .agg(pl.col("split").unique().sort())
            .filter(pl.col("split").list.len() > 1)
            .sort(column)
        )
        leaks += [
            f"{what} {name} is in {' and '.join(found)}" for name, found in spread.iter_rows()
        ]
    twins = rows.filter(pl.col("duplicate_of").is_not_null()).select("duplicate_of", "split")
    owners = rows.select("face_id", "split").rename({"face_id": "duplicate_of"})
    spread = (
        pl.concat([twins, owners.join(twins, on="duplicate_of", how="semi")])
        .group_by("duplicate_of")
        .agg(pl.col("split").unique().sort())
        .filter(pl.col("split").list.len() > 1)
        .sort("duplicate_of")
    )
    leaks += [
        f"near duplicates of face {name} are in {' and '.join(found)}"
        for name, found in spread.iter_rows()
    ]
    return leaks


def refuse_leaks(rows: pl.DataFrame) -> None:
    """Raise what ``check`` finds.

    Raises:
        ReleaseError: a person, a video or a near duplicate is in two splits.
    """
    leaks = check(rows)
    if leaks:
        raise ReleaseError(
            "every subject, video and near duplicate in one split",
            got="; ".join(leaks[:3]),
            hint="report this: splits are made so that it cannot happen",
        )


@dataclass
class _Groups:
    """Union-find whose groups never join two splits that an earlier version fixed."""

    fixed: dict[str, str]
    parent: dict[str, str] = field(default_factory=dict)

    def root(self, node: str) -> str:
        self.parent.setdefault(node, node)
        while self.parent[node] != node:
            self.parent[node] = self.parent[self.parent[node]]
            node = self.parent[node]
        return node

    def split(self, node: str) -> str | None:
        return self.fixed.get(self.root(node))

    def tie(self, left: str, right: str) -> None:
        one, two = sorted((self.root(left), self.root(right)))
        splits = {self.fixed[root] for root in (one, two) if root in self.fixed}
        if one == two or len(splits) > 1:
            return
        self.parent[two] = one
        if splits:
            self.fixed[one] = splits.pop()


def _nodes(rows: pl.DataFrame) -> tuple[pl.Expr, ...]:
    twin = pl.col("duplicate_of")
    near = pl.col("near_group") if "near_group" in rows.columns else pl.lit(None, pl.String)
    own = pl.col("face_id").is_in(twin.drop_nulls().unique().implode())
    return (
        ("subject " + pl.col("subject_id")).alias("subject"),
        ("video " + pl.col("video_id")).alias("video"),
        pl.when(own).then("face " + pl.col("face_id")).alias("own"),
        ("face " + twin).alias("twin"),
        ("near " + near).alias("near"),
    )


def _ties(rows: pl.DataFrame) -> Iterable[tuple[str, str]]:
    """Pairs of nodes, those that hold most rows first, so that a conflict costs the fewest."""
    nodes = rows.select(*_nodes(rows))
    together = (
        nodes.group_by("subject", "video")
        .len()
        .sort("len", "subject", "video", descending=[True, False, False])
    )
    yield from together.select("subject", "video").iter_rows()
    for column in _LIKE:
        pairs = nodes.select("video", column).drop_nulls().unique().sort("video", column)
        yield from pairs.iter_rows()


def _sizes(groups: _Groups, nodes: pl.DataFrame) -> dict[str, int]:
    counted = nodes.group_by("video").len().sort("video")
    sizes: dict[str, int] = {}
    for video, n in counted.iter_rows():
        root = groups.root(video)
        sizes[root] = sizes.get(root, 0) + n
    return sizes


def _fill(groups: _Groups, sizes: Mapping[str, int]) -> None:
    """Fix a split for every group that has none."""
    held = dict.fromkeys(SPLITS, 0)
    for root, size in sizes.items():
        if root in groups.fixed:
            held[groups.fixed[root]] += size
    new = sorted((root for root in sizes if root not in groups.fixed), key=_hash)
    total = sum(sizes.values())
    for root in new:
        lacking = {split: SHARES[split] * total - held[split] for split in SPLITS}
        # Of two that lack the same, test before validation: a number to report comes first.
        split = max(("train", "test", "validation"), key=lambda name: lacking[name])
        if not held["train"]:
            split = "train"
        groups.fixed[root] = split
        held[split] += sizes[root]
    for split in ("test", "validation"):
        movable = [root for root in new if groups.fixed[root] == "train"]
        if held[split] or not movable:
            continue
        least = min(movable, key=lambda root: (sizes[root], _hash(root)))
        if 2 * (held["train"] - sizes[least]) > total:
            groups.fixed[least] = split
            held["train"] -= sizes[least]
            held[split] += sizes[least]


def _hash(node: str) -> str:
    return hashlib.sha256(node.encode()).hexdigest()


def _members(
    rows: pl.DataFrame, earlier: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    members: dict[str, dict[str, str]] = {}
    for kind, column in (("subject", "subject_id"), ("video", "video_id")):
        found = dict(rows.select(column, "split").unique().iter_rows())
        # A person who is absent from this version keeps their place for the next one.
        members[kind] = dict(sorted({**earlier.get(kind, {}), **found}.items()))
    return members
