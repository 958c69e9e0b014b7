"""Define the errors that Risorius raises deliberately."""

from __future__ import annotations

from warehouse.masking import mask


class RisoriusError(Exception):
    """Base class of all deliberate errors.

    The message reads ``<problem>: <got>. <hint>.`` Secrets in it are masked.

    Args:
        problem: what failed, as a sentence without its full stop.
        got: the value that made it fail.
        hint: the next step for the user, as an imperative.
    """

    def __init__(self, problem: str, *, got: str, hint: str) -> None:
        self.problem, self.got, self.hint = mask(problem), mask(got), mask(hint)
        found = f": {self.got}" if self.got else ""
        super().__init__(f"{self.problem}{found}. {self.hint[:1].upper()}{self.hint[1:]}")

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling across worker processes.
        return (_rebuild, (type(self), self.problem, self.got, self.hint))


def _rebuild(kind: type[RisoriusError], problem: str, got: str, hint: str) -> RisoriusError:
    return kind(problem, got=got, hint=hint)


class SettingsError(RisoriusError):
    """A setting, option or path of the user is invalid."""


class MediaError(RisoriusError):
    """A video or image cannot be read. It fails that item, never the batch."""


class ModelError(RisoriusError):
    """Weights are missing, damaged or unsuitable."""


class TableError(RisoriusError):
    """A table, or rows for it, do not fit the schema."""


class StudioError(RisoriusError):
    """Label Studio is unreachable, refuses a call or answers unexpectedly."""


class ReleaseError(RisoriusError):
    """A release cannot be built, found or verified."""
