"""One function per golden file; each returns the text of today's code."""

from __future__ import annotations

import argparse
import difflib
import inspect
import json
import pkgutil
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, get_args
from unittest import mock

# When a module moves or is renamed, change the tables here and nothing else in this file.

OBJECTS = {
    "command line": "pipeline.cli:app",
    "Dagster definitions": "pipeline.definitions:defs",
    "settings": "pipeline.settings:Settings",
    "audit settings": "pipeline.settings:AuditSettings",
    "tables": "warehouse.storage.schema:TABLES",
    "release folders": "warehouse.releases.schema:CONFIGS",
    "release default": "warehouse.releases.schema:features",
    "release votes": "warehouse.releases.schema:vote_features",
    "release clips": "warehouse.releases.clips:features",
    "release items": "warehouse.releases.items:features",
}

SCRIPTS = (
    "annotation.aggregation.fit_dirichlet_mixture",
    "annotation.raters.training.model_card",
    "annotation.raters.training.export",
    "annotation.raters.training.out_of_sample",
    "annotation.raters.training.prepare",
    "annotation.raters.training.train",
    "synthesis.expression_head",
    "synthesis.training.model_card",
    "synthesis.training.export",
    "synthesis.training.train",
    "synthesis.training.train_adapter",
)
"""Modules that are run with ``python -m``."""

PUBLIC: dict[str, tuple[str, ...] | None] = {
    "pipeline.faces": ("find", "FoundFace"),
    "annotation.aggregation": None,
    "annotation.audit": None,
    "annotation.audit.knn": ("nearest",),
    "annotation.raters": None,
    "warehouse": ("connect",),
    "warehouse.releases": None,
    "warehouse.vocabulary": ("AU_INDEX",),
}
"""Names that a user imports, by module; None stands for the module's ``__all__``."""

PUBLIC_WITH_TORCH: dict[str, tuple[str, ...] | None] = {
    "annotation.raters.torch_rater": ("load",),
    "synthesis": None,
}
"""The same, for modules that import torch and diffusers, which takes seconds."""

OUTSIDE_SETTINGS = ("RISORIUS_MODEL_ZOO", "RISORIUS_WORK")
"""Variables that the code reads without a settings object."""

UPDATE = "python -m tests.golden"
FOLDER = Path(__file__).parent
DEMO_RELEASE = "demo_release.json"

_ROOT = str(FOLDER.parents[1])
_PACKAGES = ("pipeline", "annotation", "synthesis", "warehouse")
_WIDTH = 100


def difference(name: str, found: str) -> str:
    """Return a unified diff from the golden file to ``found``.

    It is empty if they are equal.
    """
    path = FOLDER / name
    golden = path.read_text(encoding="utf-8") if path.exists() else ""
    if golden == found:
        return ""
    lines = difflib.unified_diff(
        golden.splitlines(),
        found.splitlines(),
        fromfile=f"tests/golden/{name}",
        tofile=f"{name} from the code",
        lineterm="",
    )
    command = f"{UPDATE} --demo" if name == DEMO_RELEASE else UPDATE
    return "\n".join([*lines, "", f"If the change is wanted, run `{command}` and commit {name}."])


def help_texts() -> str:
    """Return every command's help without boxes and colours."""
    blocks = []
    for path, command in _commands():
        command.rich_markup_mode = None
        context = command.context_class(command, info_name=path, terminal_width=_WIDTH)
        blocks.append(f"$ {path} --help\n\n{command.get_help(context).rstrip()}")
    return "\n\n\n".join(map(_portable, blocks)) + "\n"


def options() -> str:
    """Return every command with its parameters, types and defaults."""
    blocks = []
    for path, command in _commands():
        lines = [_parameter(parameter) for parameter in command.params]
        blocks.append("\n".join([path, *(f"    {line}" for line in lines)]))
    return "\n\n".join(map(_portable, blocks)) + "\n"


def scripts() -> str:
    """Return description and options of every script.

    The layout of argparse varies by Python version.
    """
    blocks = []
    for script in SCRIPTS:
        parser = _parser(script)
        lines = []
        for action in parser._actions:
            if action.dest != "help":
                lines += [f"    {_usage(action)}", *[f"        {action.help}"] * bool(action.help)]
        text = (parser.description or "").strip()
        blocks.append("\n".join([f"$ {parser.prog} --help", "", text, "", *lines]))
    return "\n\n\n".join(map(_portable, blocks)) + "\n"


def dagster() -> str:
    """Return assets, edges, checks, jobs, sensors, schedules, partitions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        repository = _object("Dagster definitions").get_repository_def()
        graph = repository.asset_graph
        jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    assets, partitions = {}, {}
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        if node.partitions_def is not None:
            partitions[node.partitions_def.name] = type(node.partitions_def).__name__
        assets[key.to_user_string()] = {
            "group": node.group_name,
            "partitions": node.partitions_def.name if node.partitions_def else None,
            "parents": sorted(parent.to_user_string() for parent in node.parent_keys),
            "checks": {
                check.name: "blocking" if graph.get(check).blocking else "not blocking"
                for check in sorted(node.check_keys)
            },
            "kinds": sorted(node.kinds),
            "owners": sorted(node.owners),
        }
    found = {
        "assets": assets,
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
            for job in sorted(jobs, key=lambda job: job.name)
        },
        "sensors": {
            sensor.name: {
                "type": sensor.sensor_type.value,
                "default": sensor.default_status.value,
                "seconds": sensor.minimum_interval_seconds,
            }
            for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name)
        },
        "schedules": {item.name: item.cron_schedule for item in repository.schedule_defs},
        "partitions": partitions,
        "resources": sorted(repository.get_top_level_resources()),
    }
    return _json(found, depth=3)


def imports(public: Mapping[str, tuple[str, ...] | None] = PUBLIC) -> str:
    """Return one line per public name and method, with its signature."""
    lines = []
    for module, names in public.items():
        there = import_module(module)
        for name in names or sorted(there.__all__):
            lines += _described(f"{module}.{name}", getattr(there, name))
    return "\n".join(_portable(line) for line in lines) + "\n"


def tables() -> str:
    """Return every table with its key and its columns in file order."""
    found = {
        name: {
            "key": list(table.key),
            "by_batch": table.by_batch,
            "columns": {column: str(kind) for column, kind in table.columns.items()},
        }
        for name, table in sorted(_object("tables").items())
    }
    return _json(found, depth=3)


def views() -> str:
    """Return every SQL view of an empty home with its columns."""
    import warehouse

    with tempfile.TemporaryDirectory() as folder:
        connection = warehouse.connect(str(Path(folder) / "home"))
        names = connection.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_name"
        ).fetchall()
        found = {
            name: {
                column: kind
                for column, kind, *_ in connection.execute(f'DESCRIBE "{name}"').fetchall()
            }
            for (name,) in names
        }
    return _json(found, depth=2)


def release_columns() -> str:
    """Return the columns of each config of a release, in order."""
    configs = {
        "default": _object("release default")(),
        "synthetic": _object("release default")(),
        "votes": _object("release votes")(),
        "clips": _object("release clips")(sound=True, flow=True),
        **{
            name: _object("release items")(name)
            for name in ("segments", "segment_votes", "texts", "spans")
        },
    }
    always = _object("release clips")(sound=False, flow=False)
    found = {
        config: {
            "folder": folder,
            "columns": {column: str(kind) for column, kind in configs[config].items()},
        }
        for config, folder in _object("release folders").items()
    }
    found["clips"]["optional"] = [column for column in configs["clips"] if column not in always]
    return _json(found, depth=3)


def settings() -> str:
    """Return every setting with its variable, default and values."""
    found: dict[str, Any] = {}
    for what in ("settings", "audit settings"):
        model = _object(what)
        prefix = model.model_config["env_prefix"]
        found[what] = dict(_fields(model, prefix, model.model_config["env_nested_delimiter"]))
    found["variables outside settings"] = list(OUTSIDE_SETTINGS)
    return _json(found, depth=2)


def demo_release(shown: Mapping[str, Any]) -> str:
    """Return what every run of ``risorius demo`` must agree on.

    Args:
        shown: the answer of ``risorius release show --json``. Votes carry times and the
            pseudonyms of one home, so their checksum is left out, as are those of the card, the
            report and the manifest, which count and show votes.
    """
    found = {
        "name": shown["name"],
        "label": shown["label"],
        "rows": shown["rows"],
        "sizes": {part: facts["rows"] for part, facts in sorted(shown["splits"]["sizes"].items())},
        "checksums": {
            config: checksum
            for config, checksum in sorted(shown["checksums"].items())
            if config != "votes"
        },
        "files": sorted(shown["files"]),
        "manifest": sorted(shown.keys() - {"path", "problems"}),
    }
    return _json(found, depth=2)


SNAPSHOTS: dict[str, Callable[[], str]] = {
    "help.txt": help_texts,
    "options.txt": options,
    "dagster.json": dagster,
    "imports.txt": imports,
    "tables.json": tables,
    "views.json": views,
    "release_columns.json": release_columns,
    "settings.json": settings,
    "imports_with_torch.txt": partial(imports, PUBLIC_WITH_TORCH),
    "scripts.txt": scripts,
}


def _object(what: str) -> Any:
    return pkgutil.resolve_name(OBJECTS[what])


def _commands() -> Iterator[tuple[str, Any]]:
    """Yield each command with its words, groups before their commands."""
    import typer

    def walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(f"{path} {name}", child)

    yield from walk("risorius", typer.main.get_command(_object("command line")))


def _parameter(parameter: Any) -> str:
    names = " ".join([*parameter.opts, *parameter.secondary_opts])
    kind = parameter.type_descriptor.annotation
    facts = [str(kind) if get_args(kind) else getattr(kind, "__name__", str(kind))]
    facts += [
        f"{end}={getattr(parameter, end)}"
        for end in ("min", "max")
        if getattr(parameter, end) is not None
    ]
    facts.append(_default(parameter.default))
    facts += ["required"] * parameter.required
    facts += ["multiple"] * (parameter.nargs != 1 or getattr(parameter, "multiple", False))
    facts += [f"variable={parameter.envvar}"] * bool(parameter.envvar)
    return f"{names}: {', '.join(facts)}"


def _default(value: Any) -> str:
    if value is None:
        return "no default"
    return f"default={str(value) if isinstance(value, Path) else repr(value)}"


class _StopError(Exception):
    """Raised instead of parsing, after a script has built its parser."""


def _parser(script: str) -> argparse.ArgumentParser:
    """Return the argument parser of a script without running it."""
    built: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        built.append(parser)
        raise _StopError

    main = import_module(script).main
    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            main([])
        except _StopError:
            return built[0]
    raise AssertionError(f"{script} has no argument parser")


def _usage(action: argparse.Action) -> str:
    kind = getattr(action.type, "__name__", None) or ("str" if action.nargs != 0 else "flag")
    facts = [kind, _default(action.default)]
    if action.choices is not None:
        facts.append("one of " + "|".join(map(str, action.choices)))
    facts += ["required"] * action.required
    facts += ["multiple"] * (action.nargs in ("+", "*"))
    return f"{' '.join(action.option_strings) or action.dest}: {', '.join(facts)}"


def _described(path: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"{path}{_signature(value)}"
        for name in sorted(set(dir(value)) | {"__call__"}):
            owner = next((kind for kind in value.__mro__ if name in vars(kind)), None)
            if owner is None or owner.__module__.split(".")[0] not in _PACKAGES:
                continue
            if name.startswith("_") and name != "__call__":
                continue
            member = getattr(value, name)
            if callable(member):
                yield f"{path}.{name}{_signature(member)}"
            elif isinstance(member, property):
                yield f"{path}.{name}"
    elif callable(value):
        yield f"{path}{_signature(value)}"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _described(f"{path}[{key!r}]", item)
    else:
        yield f"{path} = {value!r}"


class _Annotation:
    """An annotation that ``inspect.Signature`` prints as in the source."""

    def __init__(self, value: Any) -> None:
        self.text = value if isinstance(value, str) else getattr(value, "__name__", str(value))

    def __repr__(self) -> str:
        return self.text


def _signature(value: Any) -> str:
    found = inspect.signature(value)
    empty = inspect.Signature.empty
    result = empty if inspect.isclass(value) else found.return_annotation
    return str(
        found.replace(
            parameters=[
                item.replace(
                    annotation=empty if item.annotation is empty else _Annotation(item.annotation)
                )
                for item in found.parameters.values()
            ],
            return_annotation=empty if result is empty else _Annotation(result),
        )
    )


def _fields(model: Any, prefix: str, delimiter: str | None) -> Iterator[tuple[str, Any]]:
    """Yield ``name, facts`` for each field of a settings model.

    Fields of nested models are included.
    """
    schema = model.model_json_schema(by_alias=False)["properties"]
    for name, field in model.model_fields.items():
        variable = field.validation_alias or prefix + name.upper()
        nested = field.annotation
        if inspect.isclass(nested) and hasattr(nested, "model_fields"):
            for below, facts in _fields(nested, f"{variable}{delimiter}", delimiter):
                yield f"{name}.{below}", facts
        else:
            facts = {k: v for k, v in schema[name].items() if k not in ("title", "description")}
            yield name, {"variable": variable, **facts}


def _portable(text: str) -> str:
    """Replace what differs between two checkouts or two processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", text.replace(_ROOT, "<repository>"))


def _json(value: Any, *, depth: int) -> str:
    """Return JSON whose objects are expanded down to ``depth``.

    Objects below are one line each.
    """

    def lines(value: Any, level: int) -> str:
        if not isinstance(value, Mapping) or level >= depth or not value:
            text = json.dumps(value, ensure_ascii=False)
            if isinstance(value, list) and len(text) + 4 * level > _WIDTH:
                pad = "  " * (level + 1)
                items = ",\n".join(pad + json.dumps(item, ensure_ascii=False) for item in value)
                return f"[\n{items}\n{'  ' * level}]"
            return text
        pad = "  " * (level + 1)
        items = ",\n".join(
            f"{pad}{json.dumps(key)}: {lines(item, level + 1)}" for key, item in value.items()
        )
        return f"{{\n{items}\n{'  ' * level}}}"

    return lines(value, 0) + "\n"
