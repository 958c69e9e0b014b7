"""Define the errors that Risorius raises deliberately."""

from __future__ import annotations

import errno
from collections.abc import Iterator

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


class SystemFailureError(RisoriusError):
    """Memory, disk, rights or network failed; no fault of the data."""


class DiskError(SystemFailureError):
    """The disk is full or cannot be written to; more writes fail too."""


_AGAIN = "run the same command again, which goes on where it stopped"
_FULL = (
    "The disk is full",
    f"free space, or name another disk with --home, then {_AGAIN}",
    (errno.ENOSPC, errno.EDQUOT),
    ("no space left on device", "disk is full", "disk full", "disk quota exceeded"),
)
_READ_ONLY = (
    "The disk can only be read",
    "mount it for writing, or name another home with --home",
    (errno.EROFS,),
    ("read-only file system", "readonly database", "attempt to write a readonly"),
)
_OTHERS = (
    (
        "A file may not be read or written",
        "change the owner or the rights of that file or folder",
        (errno.EACCES, errno.EPERM),
        ("permission denied", "unable to open database file"),
    ),
    (
        "Too many files are open",
        "raise the limit with `ulimit -n 4096`, or use fewer workers (RISORIUS_WORKERS)",
        (errno.EMFILE, errno.ENFILE),
        ("too many open files",),
    ),
    (
        "The disk reports an error",
        "check the disk; a backup taken before is the safe copy",
        (errno.EIO,),
        ("input/output error", "disk i/o error"),
    ),
)
_MEMORY = ("memoryerror", "outofmemory", "out of memory", "cannot allocate memory", "bad_alloc")


def system_failure(error: BaseException) -> SystemFailureError | None:
    """Return what the machine failed at, if an error or a cause of it says so.

    Libraries wrap the errors of the system in their own, so the text counts too.
    """
    chain = list(_causes(error))
    for one in chain:
        number = one.errno if isinstance(one, OSError) else None
        # The text of an error with a number holds the name of a file, which may say anything.
        text = f"{type(one).__name__}: {one}".lower() if number is None else ""
        for kind, (problem, hint, numbers, phrases) in (
            (DiskError, _FULL),
            (DiskError, _READ_ONLY),
            *((SystemFailureError, row) for row in _OTHERS),
        ):
            if number in numbers or any(phrase in text for phrase in phrases):
                return kind(problem, got=_what(one), hint=hint)
        short = isinstance(one, MemoryError) or number == errno.ENOMEM
        if short or any(phrase in text for phrase in _MEMORY):
            return SystemFailureError(
                "There is not enough memory",
                got=_what(one),
                hint="close other programs, or use one worker (RISORIUS_WORKERS=1); if one file "
                f"is too large, leave it out; then {_AGAIN}",
            )
    for one in chain:
        if isinstance(one, OSError):
            where = "The network failed" if _is_network(one) else "A file cannot be used"
            return SystemFailureError(where, got=_what(one), hint=f"check it, then {_AGAIN}")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _is_network(error: OSError) -> bool:
    name = type(error).__name__
    return isinstance(error, ConnectionError | TimeoutError) or any(
        part in name for part in ("Connection", "Timeout", "HTTP", "SSL")
    )


def _what(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]
