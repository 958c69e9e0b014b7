"""Audits: score and flag per face, and one score per set."""

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

AUDITS: dict[str, type[LabelNoise | OpenSet | NearDuplicates | RaterDrift]] = {
    audit.name: audit for audit in (LabelNoise, OpenSet, NearDuplicates, RaterDrift)
}


def run(name: str, **inputs: Any) -> AuditResult:
    """Run one audit by name.

    ========================  ==================================================================
    ``label_noise``           ``labels`` and out-of-sample ``probabilities`` or ``features``;
                              ``votes``, ``groups``, ``face_ids``, and ``trained_on`` or
                              ``out_of_sample``
    ``open_set``              any of ``labels``, ``probabilities``, ``features``, ``open_set``;
                              ``face_ids``
    ``near_duplicates``       ``faces`` with ``phash`` and/or ``feature``
    ``rater_drift``           ``votes`` with ``updated_at``
    ========================  ==================================================================

    Settings of the audit (fields of its class, such as ``radius``) are passed by name beside the
    inputs. Frames need ``face_id``. Arrays follow ``face_ids``, or the rows of ``labels`` if that
    is a frame. The audit's class documents its inputs, score, flag and detail.

    Raises:
        SettingsError: the audit is unknown, or an input is unknown or missing.
        TableError: an input is invalid.
    """
    if name not in AUDITS:
        raise SettingsError(
            "Unknown audit", got=repr(name), hint=f"choose one of {', '.join(AUDITS)}"
        )
    settings = {field.name for field in dataclasses.fields(AUDITS[name])}
    audit = AUDITS[name](**{key: inputs.pop(key) for key in settings & set(inputs)})
    signature = inspect.signature(audit.find)
    try:
        signature.bind(**inputs)
    except TypeError as error:
        raise SettingsError(
            f"Inputs of the audit {name} do not fit",
            got=f"{', '.join(inputs) or 'none'} ({error})",
            hint=f"choose from {', '.join([*signature.parameters, *sorted(settings)])}",
        ) from error
    return audit.find(**inputs)
