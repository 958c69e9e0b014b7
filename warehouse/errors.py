"""The errors Risorius raises on purpose. Anything else that escapes is a bug."""

from __future__ import annotations

from warehouse.masking import mask


class RisoriusError(Exception):
    """Base of every deliberate failure.

    Args:
        expected: what should have been there, as a noun phrase.
        got: what came instead.
        mend: the next step for the person reading, as an imperative.

    The message never holds a token: callers pass addresses and names, not headers, and what
    still looks like one is masked.
    """

    def __init__(self, expected: str, *, got: str, mend: str) -> None:
        self.expected, self.got, self.mend = mask(expected), mask(got), mask(mend)
        super().__init__(f"expected {self.expected}, got {self.got}; {self.mend}")

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling across worker processes.
        return (_rebuild, (type(self), self.expected, self.got, self.mend))


def _rebuild(kind: type[RisoriusError], expected: str, got: str, mend: str) -> RisoriusError:
    return kind(expected, got=got, mend=mend)


class SettingsError(RisoriusError):
    """A setting, option or path given by the user does not fit."""


class MediaError(RisoriusError):
    """A video or image cannot be read. Ends as a verdict of that item, never of the batch."""


class ModelError(RisoriusError):
    """Weights are missing, damaged, or do not do what their caller needs."""


class TableError(RisoriusError):
    """A table, or rows meant for it, do not fit the schema."""


class StudioError(RisoriusError):
    """Label Studio is away, refuses us, or answers something we cannot use."""


class ReleaseError(RisoriusError):
    """A release cannot be built, found or trusted."""
