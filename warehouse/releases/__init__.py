"""Releases: immutable dataset versions in Hub layout. Importing this stays light."""

from __future__ import annotations

from warehouse.releases.build import build
from warehouse.releases.dataloader import torch_dataset
from warehouse.releases.diff import Difference, diff
from warehouse.releases.eligibility import breaches
from warehouse.releases.evaluation import evaluate
from warehouse.releases.export import export
from warehouse.releases.hub import Publication, publish
from warehouse.releases.lineage import lineage
from warehouse.releases.load import leaks, list_releases, load, show, verify
from warehouse.releases.unpublish import withdraw, withdraw_all
from warehouse.releases.versions import Release

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
