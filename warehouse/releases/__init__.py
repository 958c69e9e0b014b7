"""Releases: immutable dataset versions in Hub layout. Importing this stays light."""

from __future__ import annotations

from warehouse.releases.build import build
from warehouse.releases.load import leaks, list_releases, load, show, verify
from warehouse.releases.versions import Release

__all__ = ["Release", "build", "leaks", "list_releases", "load", "show", "verify"]
