"""Install Label Studio and prepare its environment and database.

The server needs some twenty packages at fixed versions that ours must not be bound to, so
``uv tool run`` runs it in an environment of its own. ``uv`` is a dependency from PyPI.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from warehouse.errors import StudioError
from warehouse.masking import mask

VERSION = "1.23.2"
CONSTRAINTS = Path(__file__).with_name("server-constraints.txt")
DATABASE = "label_studio.sqlite3"

INSTALL_S = 1800
_FIRST_START = "first-start-unfinished"

_PASSED_ON = re.compile(
    r"PATH|HOME|LANG|LC_\w+|TZ|TMPDIR|USER|LOGNAME|XDG_\w+|LD_LIBRARY_PATH"
    r"|(https?|all|no)_proxy|(HTTPS?|ALL|NO)_PROXY"
    r"|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|CERT)"
    r"|UV_(DEFAULT_INDEX|INDEX\w*|EXTRA_INDEX_URL|FIND_LINKS|CACHE_DIR|CONFIG_FILE|NO_CONFIG"
    r"|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST|HTTP_\w+|KEYRING_PROVIDER|LINK_MODE|OFFLINE"
    r"|PYTHON_(INSTALL_DIR|INSTALL_MIRROR|DOWNLOADS|PREFERENCE)|TOOL_DIR|CONCURRENT_\w+)"
)
"""Variables that uv needs. The server reads a plain HOST, PORT, DEBUG or PASSWORD as a setting."""

_BANNED_SUBNETS = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128",
    "::ffff:0:0/96", "64:ff9b::/96", "100::/64", "2001::/32", "2001:db8::/32", "2002::/16",
    "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip
"""Reserved networks (RFC 6890) that the server may not call. IPv4 loopback is allowed: our webhook
receiver listens there."""


def ensure_installed(progress: Callable[[str], None]) -> list[str]:
    """Install the server if needed.

    Return the command prefix before ``label-studio``.

    Raises:
        StudioError: uv is missing, or cannot install the server.
    """
    # Offline first: with everything cached it answers in 0.3 s instead of resolving for 4 s.
    offline = _uv_command("--offline")
    if _probe(offline).returncode == 0:
        return offline
    progress(f"installing Label Studio {VERSION} in an environment of its own (once, about 800 MB)")
    done = _probe(_uv_command())
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise StudioError(
            f"uv could not install label-studio=={VERSION}",
            got=mask(" / ".join(lines[-4:])) or f"exit code {done.returncode}",
            hint="check the network and the package index, then run the same command again",
        )
    return offline if _probe(offline).returncode == 0 else _uv_command()


def environment(
    given: Mapping[str, str],
    *,
    data_dir: Path,
    media_dir: Path,
    email: str,
    password: str,
    token: str,
    postgres: str | None = None,
) -> dict[str, str]:
    """Return the server's whole environment.

    Allowed variables, then our settings.

    The account (e-mail, password, token) is created at the first start and ignored later.

    Args:
        given: environment of this process; only variables that uv needs are passed on.
        postgres: URL of a database to use instead of SQLite.

    Raises:
        StudioError: ``postgres`` is no PostgreSQL URL.
    """
    return {
        **_passed_on(given),
        "PYTHONUNBUFFERED": "1",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LOG_LEVEL": "WARNING",
        "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
        "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
        "LABEL_STUDIO_BASE_DATA_DIR": str(data_dir),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(media_dir),
        "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS": "false",
        "LABEL_STUDIO_USER_ADDITIONAL_BANNED_SUBNETS": ",".join(_BANNED_SUBNETS),
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_USERNAME": email,
        "LABEL_STUDIO_PASSWORD": password,
        "LABEL_STUDIO_USER_TOKEN": token,
        **(postgres_variables(postgres) if postgres else {}),
    }


def prepare_sqlite(studio_dir: Path) -> None:
    """Prepare ``data/`` for a start.

    Discard it if the first start never finished.

    Some migrations of the server are not atomic: if it is killed during one, it never starts
    again. The marker file is removed once the server has answered, so no vote can be lost.

    The journal becomes a write-ahead log; the mode is stored in the file. Measured on one
    machine: a vote took 180 ms, now 80 ms. It survives a crash as before, and readers no longer
    block writers.
    """
    data, marker = studio_dir / "data", studio_dir / _FIRST_START
    if marker.exists():
        shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, exist_ok=True)
    if not (data / DATABASE).exists():
        marker.touch()
    try:
        with closing(sqlite3.connect(data / DATABASE)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.DatabaseError:
        return  # Damaged file or unsupported disk: the server reports it.


def finish_first_start(studio_dir: Path) -> None:
    """Record that the server has answered.

    Its database is never discarded from now on.
    """
    (studio_dir / _FIRST_START).unlink(missing_ok=True)


def postgres_variables(url: str) -> dict[str, str]:
    """Return the server's variables for a Postgres URL.

    The form is ``postgresql://user:password@host:port/name``.

    Raises:
        StudioError: it is no such URL; the password is masked.
    """
    found = urlsplit(url)
    try:
        port = found.port or 5432
    except ValueError:
        port = 0
    name = unquote(found.path.strip("/"))
    if found.scheme not in ("postgresql", "postgres") or not (found.hostname and name and port):
        raise StudioError(
            "The database address of Label Studio is not a PostgreSQL URL",
            got=mask(url),
            hint="set RISORIUS_STUDIO_POSTGRES to postgresql://user:password@host:5432/name",
        )
    return {
        "DJANGO_DB": "default",
        "POSTGRE_NAME": name,
        "POSTGRE_USER": unquote(found.username or ""),
        "POSTGRE_PASSWORD": unquote(found.password or ""),
        "POSTGRE_HOST": found.hostname,
        "POSTGRE_PORT": str(port),
    }


def _passed_on(given: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in given.items() if _PASSED_ON.fullmatch(name)}


def _uv_command(*options: str) -> list[str]:
    try:
        import uv

        binary = uv.find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise StudioError(
            "The uv program is missing",
            got=str(error),
            hint="install Risorius again with its dependencies",
        ) from error
    return [
        binary, "tool", "run", *options, "--python", sys.executable,
        "--from", f"label-studio=={VERSION}", "--constraints", str(CONSTRAINTS),
    ]  # fmt: skip


def _probe(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [*command, "python", "-c", ""], env=_passed_on(os.environ),
            capture_output=True, text=True, timeout=INSTALL_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"not finished after {INSTALL_S} s")
