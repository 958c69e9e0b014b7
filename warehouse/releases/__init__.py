"""Build, load, compare and publish immutable dataset versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warehouse.releases.build import build
from warehouse.releases.diff import Difference, diff
from warehouse.releases.eligibility import breaches
from warehouse.releases.evaluation import evaluate
from warehouse.releases.export import export
from warehouse.releases.hub import Publication, publish, withdraw, withdraw_all
from warehouse.releases.lineage import lineage
from warehouse.releases.load import leaks, list_releases, load, show
from warehouse.releases.verification import verify
from warehouse.releases.versions import Release

if TYPE_CHECKING:
    from warehouse.releases.dataloader import torch_dataset

__all__ = [
    "Difference",
    "Publication",
    "Release",
    "breaches",
    "build",
    "diff",
    "evaluate",
    "export",
    "leaks",
    "lineage",
    "list_releases",
    "load",
    "publish",
    "show",
    "torch_dataset",
    "verify",
    "withdraw",
    "withdraw_all",
]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import: load it only for `torch_dataset`.
    if name == "torch_dataset":
        from warehouse.releases.dataloader import torch_dataset

        return torch_dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
