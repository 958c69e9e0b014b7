"""Every setting by the name of its variable: what it is now, and what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from pipeline.settings import Settings
from warehouse.masking import MASK, mask

_GATE = "of the quality gate; default: {default}"


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        value: as text, secrets masked; empty where nothing is set.
        moved: it is not the default.
    """

    variable: str
    value: str
    moved: bool
    meaning: str


def configured(settings: Settings) -> list[Setting]:
    """All settings in the order of their declaration, those of the gate one by one."""
    return list(_told(settings, prefix="RISORIUS_"))


def _told(model: BaseModel, *, prefix: str) -> Iterator[Setting]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _told(value, prefix=f"{prefix}{name.upper()}__")
            continue
        yield Setting(
            variable=_variable(name, field, prefix),
            value=_text(value),
            moved=value != field.get_default(call_default_factory=True),
            meaning=field.description or _threshold(name),
        )


def _variable(name: str, field: FieldInfo, prefix: str) -> str:
    alias = field.validation_alias
    return alias if isinstance(alias, str) else prefix + name.upper()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return mask(str(value).lower() if isinstance(value, bool) else str(value))


def _threshold(name: str) -> str:
    from pipeline.faces.quality import Gate

    default = getattr(Gate(), name, None)
    return "" if default is None else _GATE.format(default=f"{default:g}")
