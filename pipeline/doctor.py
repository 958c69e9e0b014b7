"""Check installation, servers and settings."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from pipeline import models
from pipeline.execution import local
from pipeline.settings import Settings
from warehouse.errors import RisoriusError
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

_LOW_DISK_GB = 5
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``state`` is ``ok``, ``note`` or ``wrong``."""

    what: str
    state: str
    found: str
    hint: str | None = None


def examine(settings: Settings, *, verify: bool = False) -> list[Finding]:
    """Run every check.

    Args:
        verify: read the whole home and compare every checksum.
    """
    home = settings.place
    checks: list[Callable[[], Finding]] = [
        _python,
        _opencv,
        _decoder,
        lambda: _home(home, mask=int(settings.umask, 8)),
        lambda: _tables(home),
        lambda: _engine(settings),
        lambda: _runs(settings),
        lambda: _detector(models.place_of(home, settings.detector)),
        lambda: _rater(settings.rater),
        _accelerator,
        lambda: _studio(settings),
        lambda: _pictures(settings),
        _browser,
    ]
    found = [_guarded(check) for check in checks]
    return found + (_verified(home) if verify else [])


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except RisoriusError as error:
        name = getattr(check, "__name__", "check").strip("_")
        return Finding(name, "wrong", f"{error.problem}: {error.got}", error.hint)
    except Exception as error:
        return Finding("check", "wrong", f"{type(error).__name__}: {error}", "run with --debug")


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    packages = ("risorius", "dagster", "label-studio-sdk", "insightface", "cleanlab", "datasets")
    listed = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return Finding("python", "ok", f"{version}; {listed}")


def _opencv() -> Finding:
    import cv2

    names = ("opencv-python", "opencv-python-headless", "opencv-contrib-python")
    wheels = {name: importlib.metadata.version(name) for name in names if _installed(name)}
    # All of them write one folder cv2, which is harmless only if their versions are equal.
    if len(set(wheels.values())) != 1:
        found = " and ".join(f"{name} {version}" for name, version in wheels.items())
        hint = f"uninstall {', '.join(wheels)}, then install risorius again"
        return Finding("opencv", "wrong", f"cv2 {cv2.__version__} of {found}", hint)
    return Finding("opencv", "ok", f"cv2 {cv2.__version__}")


def _decoder() -> Finding:
    import av

    major = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return Finding("video decoder", "ok", f"PyAV {av.__version__}, libavcodec {major}")


def _home(home: Home, *, mask: int) -> Finding:
    existing = home.root if home.root.exists() else home.root.parent
    free = shutil.disk_usage(existing if existing.exists() else "/").free / 1e9
    found = f"{home.root}, {free:.0f} GB free"
    if not home.root.exists():
        return Finding("home", "note", f"{home.root} does not exist yet", "run risorius demo")
    if free < _LOW_DISK_GB:
        return Finding("home", "note", found, "free space, or name another disk with --home")
    if not os.access(home.root, os.W_OK):
        return Finding("home", "note", f"{found}, only to be read", "nothing can be added to it")
    if warning := home.clock_warning():
        return Finding("home", "note", warning, "set the clock")
    if open_to := home.root.stat().st_mode & 0o777 & mask:
        hint = f"close it: chmod -R go= '{home.root}'; or set RISORIUS_UMASK"
        return Finding("home", "note", f"{found}, open to others (mode {open_to:03o})", hint)
    return Finding("home", "ok", found)


def _tables(home: Home) -> Finding:
    from warehouse.storage import tables

    counts = {name: tables.read(home, name).height for name in TABLES}
    full = ", ".join(f"{name} {n}" for name, n in counts.items() if n)
    return Finding("tables", "ok", full or "empty")


def _engine(settings: Settings) -> Finding:
    if settings.engine == "local":
        return Finding("engine", "ok", f"local, {settings.workers or local.cores()} processes")
    from pipeline.execution.ray import connect

    resources = connect().cluster_resources()
    found = f"Ray: {resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU"
    return Finding("engine", "ok", found)


def _runs(settings: Settings) -> Finding:
    if settings.dagster_postgres is None:
        return Finding("dagster runs", "ok", "SQLite in the home")
    from pipeline.dagster_instance.instance import open_instance

    with open_instance(settings.place) as instance:
        return Finding("dagster runs", "ok", f"Postgres, {instance.get_runs_count()} runs")


def _verified(home: Home) -> list[Finding]:
    from warehouse.storage.backup import verify
    from warehouse.storage.checksums import RECORD

    found = []
    for kind, checked, wrong in verify(home):
        said = f"{checked} read, every checksum holds"
        if wrong:
            more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            said = f"{checked} read, {len(wrong)} wrong: {'; '.join(wrong[:_SHOWN])}{more}"
        hint = "restore them from a backup, or delete them and run their stage again"
        if kind == "tables":
            hint += f"; if you removed or put back files yourself, delete {home.root / RECORD}"
        state = "wrong" if wrong else "ok"
        found.append(Finding(kind, state, said, hint if wrong else None))
    return found


def _detector(name: str) -> Finding:
    from pipeline.faces import detect

    return Finding("face detector", "ok", detect.load(name).name)


def _rater(name: str) -> Finding:
    from annotation import raters

    return Finding("machine rater", "ok", raters.load(name).rater_id)


def _accelerator() -> Finding:
    import onnxruntime

    providers = [name.removesuffix("ExecutionProvider") for name in _providers(onnxruntime)]
    return Finding("onnx runtime", "ok", f"{onnxruntime.__version__}: {', '.join(providers)}")


def _studio(settings: Settings) -> Finding:
    from annotation.label_studio.client import Address

    state = settings.label_studio.status()
    if state is None:
        return Finding("label studio", "note", "not running", "start it with risorius studio up")
    if settings.label_studio_url and (warning := Address(settings.label_studio_url, "").warning):
        return Finding("label studio", "note", state, warning)
    return Finding("label studio", "ok", state)


def _pictures(settings: Settings) -> Finding:
    from annotation.label_studio import projects
    from annotation.label_studio.media import Folder

    what, source = "pictures to label", settings.label_studio.media_source()
    if not isinstance(source, Folder):
        state, found, hint = projects.check_media(settings.label_studio, source)
        return Finding(what, state, found, hint)
    found = f"files of {settings.place.media}"
    if not settings.label_studio_url:
        return Finding(what, "ok", found)
    hint = "mount them there under the same path; with a home in a bucket no mount is needed: "
    return Finding(what, "note", found, f"{hint}RISORIUS_MEDIA_FROM=store")


def _browser() -> Finding:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        return Finding("browser", "note", "no Chromium; only browser tests need one")
    return Finding("browser", "ok", path)


def _providers(runtime: object) -> list[str]:
    return list(runtime.get_available_providers())  # type: ignore[attr-defined]


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
