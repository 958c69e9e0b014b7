"""Store tables, media and releases.

``warehouse.connect(home).sql("select verdict, count(*) from faces group by all")`` queries the
tables. ``warehouse.releases.load("faces", "v1", home=home)`` reads a release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

    from warehouse.storage.home import Home


def connect(home: str | Home) -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB with one view per table of the home."""
    from warehouse.storage import views

    return views.connect(home)


def __getattr__(name: str) -> Any:
    # Import `releases` on first use only: it takes a second.
    if name == "releases":
        import importlib

        return importlib.import_module("warehouse.releases")
    raise AttributeError(f"module 'warehouse' has no attribute {name!r}")
