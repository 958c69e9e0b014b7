"""How the Label Studio server is run: pinned, in an environment of its own, with a scrubbed shell.

It holds some twenty packages at versions that ours must be free of, so `uv tool run` keeps it
apart; `uv` itself comes with us from PyPI and is always found.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from annotation.label_studio import database
from warehouse.errors import StudioError
from warehouse.masking import mask

VERSION = "1.23.2"
CONSTRAINTS = Path(__file__).with_name("server-constraints.txt")
_INSTALL_S = 1800

_PASSED = re.compile(
    r"PATH|HOME|LANG|LC_\w+|TZ|TMPDIR|USER|LOGNAME|XDG_\w+|LD_LIBRARY_PATH"
    r"|(https?|all|no)_proxy|(HTTPS?|ALL|NO)_PROXY"
    r"|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|CERT)"
    r"|UV_(DEFAULT_INDEX|INDEX\w*|EXTRA_INDEX_URL|FIND_LINKS|CACHE_DIR|CONFIG_FILE|NO_CONFIG"
    r"|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST|HTTP_\w+|KEYRING_PROVIDER|LINK_MODE|OFFLINE"
    r"|PYTHON_(INSTALL_DIR|INSTALL_MIRROR|DOWNLOADS|PREFERENCE)|TOOL_DIR|CONCURRENT_\w+)"
)
"""What uv needs to install. The server reads a plain HOST, PORT, DEBUG or PASSWORD as a setting."""

_BANNED_SUBNETS = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128",
    "::ffff:0:0/96", "64:ff9b::/96", "100::/64", "2001::/32", "2001:db8::/32", "2002::/16",
    "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip
"""Reserved networks (RFC 6890) that the server may not call, all but IPv4 loopback: our own
receiver of hints listens there."""


def ensure_installed(say: Callable[[str], None]) -> list[str]:
    """The words before ``label-studio …`` on a command line; installs the server when needed.

    Raises:
        StudioError: uv is missing, or cannot install the server.
    """
    # Offline first: with everything cached it answers in 0.3 s instead of resolving for 4 s.
    offline = _uv_command("--offline")
    if _probe(offline).returncode == 0:
        return offline
    say(f"installing Label Studio {VERSION} in an environment of its own (once, about 800 MB)")
    done = _probe(_uv_command())
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise StudioError(
            f"uv to install label-studio=={VERSION}",
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
    """The server's whole environment: what ``given`` may pass on, then our own settings.

    The account (e-mail, password, token) is made on the first start and ignored after it.

    Args:
        postgres: URL of the database to use in place of SQLite, see ``database.of_postgres``.
    """
    passed = {name: value for name, value in given.items() if _PASSED.fullmatch(name)}
    return {
        **passed,
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
        **(database.of_postgres(postgres) if postgres else {}),
    }


def _uv_command(*options: str) -> list[str]:
    try:
        import uv

        binary = uv.find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise StudioError(
            "the uv program that comes with the package uv",
            got="no such program",
            hint="install Risorius again with its dependencies",
        ) from error
    return [
        binary, "tool", "run", *options, "--python", sys.executable,
        "--from", f"label-studio=={VERSION}", "--constraints", str(CONSTRAINTS),
    ]  # fmt: skip


def _probe(command: list[str]) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
    try:
        return subprocess.run(
            [*command, "python", "-c", ""],
            env=env, capture_output=True, text=True, timeout=_INSTALL_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no end after {_INSTALL_S} s")
