"""Audits: a score per row, low = bad, a flag, one score for the set. One file per audit."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from annotation.audit.base import AuditResult
from annotation.audit.label_noise import LabelNoise
from annotation.audit.near_duplicates import NearDuplicates
from annotation.audit.open_set import OpenSet
from annotation.audit.rater_drift import RaterDrift
from warehouse.errors import SettingsError

__all__ = ["AUDITS", "AuditResult", "run"]

AUDITS: dict[str, type] = {
    audit.name: audit for audit in (LabelNoise, OpenSet, NearDuplicates, RaterDrift)
}


def run(name: str, **inputs: Any) -> AuditResult:
    """Run one audit by name.

    ========================  ==================================================================
    ``label_noise``           ``labels`` and out-of-sample ``probabilities`` or ``features``;
                              ``votes``, ``groups``, ``face_ids``, and ``learned`` or
                              ``out_of_sample``
    ``open_set``              any of ``labels``, ``probabilities``, ``features``, ``open_set``;
                              ``face_ids``
    ``near_duplicates``       ``faces`` with ``phash`` and/or ``feature``
    ``rater_drift``           ``votes`` with ``updated_at``
    ========================  ==================================================================

    Settings of the audit (fields of its class, such as ``radius``) are given by name beside the
    inputs. Frames carry ``face_id``; arrays follow ``face_ids``, or the rows of ``labels`` when
    that is a frame. What each input is, and each score, flag and detail: see the audit's class.

    Raises:
        SettingsError: no such audit, or inputs it does not take or cannot do without.
        TableError: inputs that are not what they should be.
    """
    if name not in AUDITS:
        raise SettingsError(
            f"an audit out of {', '.join(AUDITS)}", got=repr(name), hint="check the name"
        )
    kind = AUDITS[name]
    names = (
        {field.name for field in dataclasses.fields(kind)}
        if dataclasses.is_dataclass(kind)
        else set()
    )
    settings = {key: inputs.pop(key) for key in names & set(inputs)}
    audit = kind(**settings)
    taken = inspect.signature(audit.find)
    try:
        taken.bind(**inputs)
    except TypeError as error:
        raise SettingsError(
            f"inputs of {name} out of {', '.join([*taken.parameters, *sorted(names)])}",
            got=f"{', '.join(inputs) or 'none'} ({error})",
            hint="check the names",
        ) from error
    return audit.find(**inputs)
