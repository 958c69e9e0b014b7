"""Find data files by name, or a user's own by path."""

from __future__ import annotations

from pathlib import Path

from warehouse.errors import SettingsError


def names(folder: Path) -> tuple[str, ...]:
    """Return the names of the files shipped in a folder."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def find(folder: Path, name: str, *, what: str) -> Path:
    """Return the shipped file of a name, or the file that a path names.

    Args:
        what: what the file holds, for the message.

    Raises:
        SettingsError: there is neither.
    """
    shipped = folder / f"{name}.toml"
    path = shipped if "/" not in name and shipped.is_file() else Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise SettingsError(
            f"No such {what}",
            got=name,
            hint=f"use one of {', '.join(names(folder))} or the path of a .toml file",
        )
    return path


def unsound(path: Path, fault: str, *, what: str) -> SettingsError:
    """Return the error of a file that contradicts itself or cannot be read."""
    problem = f"A {what} is unsound"
    return SettingsError(problem, got=f"{path.name} {fault}", hint="correct the file")
