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
    Licence("CC-BY-4.0", "cc-by-4.0", True, False, True, 20, "Name the authors."),
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


def strictest(names: Iterable[str | None]) -> Licence:
    """The licence that binds most among ``names``; ``unknown`` when there is none."""
    return max(map(terms, names), key=lambda licence: licence.rank, default=UNKNOWN)
