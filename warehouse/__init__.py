"""Where everything is kept and how it leaves.

``warehouse.connect(home).sql("select verdict, count(*) from faces group by all")`` asks the
tables; ``warehouse.releases.load("faces", "v1", home=home)`` reads a release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

    from warehouse.storage.home import Home


def connect(home: str | Home) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with one view per table of the home; see ``warehouse.storage.views``."""
    from warehouse.storage import views

    return views.connect(home)


def __getattr__(name: str) -> Any:
    # `releases` pulls in the datasets library (seconds): only for those who ask for it.
    if name == "releases":
        import importlib

        return importlib.import_module("warehouse.releases")
    raise AttributeError(f"module 'warehouse' has no attribute {name!r}")
