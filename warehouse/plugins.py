"""Functions of the user's own, named as ``package.module:function``."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any

from warehouse.errors import ModelError, SettingsError


def resolve(name: str, *, hint: str) -> Callable[..., Any]:
    """Import the function that ``name`` stands for.

    Args:
        hint: the option or setting to correct, as an imperative.

    Raises:
        SettingsError: ``name`` is not of the form ``package.module:function``.
        ModelError: the module cannot be imported, or holds no such callable.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise SettingsError("The name is not package.module:function", got=repr(name), hint=hint)
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"{name} cannot be imported", got=str(error), hint=hint) from error
    if not callable(found):
        raise ModelError(f"{name} is not callable", got=type(found).__name__, hint=hint)
    function: Callable[..., Any] = found
    return function
