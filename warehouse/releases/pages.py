"""The templates a release's pages are written from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def environment(*, html: bool) -> jinja2.Environment:
    """Templates of this package; a name a template misspells is an error, not an empty spot.

    Args:
        html: escape every value. Markdown has an escape of its own, which its template calls.
    """
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.PackageLoader("warehouse.releases"),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    return found
