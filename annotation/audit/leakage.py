"""Who learned from what: probabilities of a rater that saw a face say nothing about its label."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import polars as pl

from warehouse.errors import SettingsError

Learned = Mapping[str, Collection[str]]
"""Rater id (or fold) to the faces it learned from."""


def refuse_seen(
    rater_of: Sequence[str],
    face_ids: Sequence[str],
    learned: Learned,
    *,
    groups: Sequence[str] | None = None,
) -> None:
    """Pass only if no face was rated by a rater that learned from it, or from one of its group.

    Args:
        rater_of: who rated each face; several raters joined by ``+``.
        face_ids: in the same order.
        learned: of every rater in ``rater_of``; an empty collection says it learned from none.
        groups: one per face: near duplicates, a person. Twins of what was learned count as seen.

    Raises:
        SettingsError: a rater is not in ``learned``, or saw what it rated; says how many.
    """
    frame = pl.DataFrame(
        {
            "face": list(face_ids),
            "rater": [name.split("+") for name in rater_of],
            "group": list(face_ids if groups is None else groups),
        },
        schema={"face": pl.String, "rater": pl.List(pl.String), "group": pl.String},
    ).explode("rater")
    strangers = sorted(set(frame["rater"].drop_nulls()) - learned.keys())
    if strangers or frame["rater"].null_count():
        raise SettingsError(
            "for every rater the faces it learned from",
            got=f"nothing about {', '.join(strangers[:3]) or 'faces without a rater'}",
            hint="name them in learned=, with an empty set for a rater that learned elsewhere",
        )
    taught = pl.DataFrame(
        [(rater, face) for rater in sorted(set(frame["rater"])) for face in learned[rater]],
        schema={"rater": pl.String, "face": pl.String},
        orient="row",
    )
    group_of = frame.select("face", "group").unique()
    # A learned face that is not rated here is its own group.
    seen = taught.join(group_of, on="face", how="left").with_columns(
        group=pl.coalesce("group", "face")
    )
    both = frame.join(seen.select("rater", "group").unique(), on=["rater", "group"], how="semi")
    if both.height:
        first = both.sort("face").row(0, named=True)
        raise SettingsError(
            "probabilities by raters that never saw these faces or their twins",
            got=f"{both['face'].n_unique()} faces rated by a rater that learned from them, the "
            f"first {first['face']!r} by {first['rater']}",
            hint="rate each face with the fold that left it out, as "
            "annotation.raters.training.out_of_sample does",
        )
