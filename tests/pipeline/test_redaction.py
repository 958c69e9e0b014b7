"""Failures recorded by Dagster: enough to fix them, and no secret."""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickData, TickStatus
from dagster._utils.error import SerializableErrorInfo

from pipeline.dagster_instance.instance import open_instance
from pipeline.dagster_instance.redaction import MaskedInstance
from pipeline.ingest import register as stage
from tests.benchmarks.faults_secrets import held_by
from tests.media_files import SIX_PEOPLE
from tests.warehouse.people_home import people_home
from warehouse.storage.home import Home

WORDS = {
    "value": 'planted-"value"-7731',
    "token": "hf_plantedPlantedPlanted42",
    "login": "planted-login-word",
}

PLUGIN = f"""\
import os, sys

def rate(faces):
    print("asking with", os.environ["MODEL_API_KEY"])
    print("https://me:{WORDS["login"]}@example.org", file=sys.stderr)
    try:
        raise KeyError(os.environ["MODEL_API_KEY"])
    except KeyError as error:
        raise ConnectionError("no answer to {WORDS["token"]}") from error
"""
RAISES = 1 + PLUGIN.splitlines().index(
    f'        raise ConnectionError("no answer to {WORDS["token"]}") from error'
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    (tmp_path / "plug").mkdir()
    (tmp_path / "plug" / "planted_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "plug")
    monkeypatch.setenv("MODEL_API_KEY", WORDS["value"])
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "unused"))
    monkeypatch.setenv("RISORIUS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RISORIUS_WORKERS", "1")
    return Home.at(tmp_path / "home")


def run(instance: dg.DagsterInstance, *names: str) -> dg.ExecuteInProcessResult:
    from pipeline.defs import ingest, rating
    from pipeline.defs.resources import Workplace

    assets = [getattr(module, name) for module in (ingest, rating) for name in names
              if hasattr(module, name)]  # fmt: skip
    instance.add_dynamic_partitions("batches", ["day"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dg.materialize(
            assets,
            selection=list(names),
            instance=instance,
            partition_key="day",
            resources={"workplace": Workplace()},
            raise_on_error=False,
        )


def planted_in(folder: Path) -> list[str]:
    return [
        f"{path.relative_to(folder)}: {name}"
        for path in folder.rglob("*")
        if path.is_file()
        for name, word in WORDS.items()
        if any(one.encode() in held_by(path) for one in (word, repr(word)[1:-1]))
    ]


def test_event_log__rater_failure_masked(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    people_home(home)
    monkeypatch.setenv("RISORIUS_RATER", "planted_plugin:rate")
    with open_instance(home) as instance:
        assert isinstance(instance, MaskedInstance)
        result = run(instance, "ratings")
        (record,) = instance.get_records_for_run(
            result.run_id, of_type=dg.DagsterEventType.STEP_FAILURE
        ).records
        error = record.event_log_entry.dagster_event.step_failure_data.error
    assert not result.success
    raised = error.cause
    assert (error.cls_name, raised.cls_name, raised.cause.cls_name) == (
        "DagsterExecutionStepExecutionError", "ConnectionError", "KeyError",
    )  # fmt: skip
    assert any(f'planted_plugin.py", line {RAISES}' in line for line in raised.stack)
    assert raised.message == "ConnectionError: no answer to ***\n"
    assert planted_in(home.root) == []
    printed = list((home.dagster / "storage").rglob("*.out"))
    assert "asking with ***" in "".join(path.read_text() for path in printed)


def test_event_log__detector_failure_masked(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.inbox / "day").mkdir(parents=True)
    (home.inbox / "day" / "six.jpg").write_bytes(SIX_PEOPLE.read_bytes())
    detector = tmp_path / f"{WORDS['token']}.onnx"
    detector.write_bytes(b"no network")
    monkeypatch.setenv("RISORIUS_DETECTOR", str(detector))
    stage.register(home, "day")
    with open_instance(home) as instance:
        assert run(instance, "faces").success  # a verdict, no failure
    assert planted_in(home.root) == []


def test_event_log__sensor_failure_masked(home: Home) -> None:
    failure = SerializableErrorInfo(f"no {WORDS['token']}", [f"  {WORDS['value']}\n"], "KeyError")
    batch = "0123456789abcdef0123456789abcdef01234567"  # shaped like a token
    with open_instance(home) as instance:
        instance.create_tick(
            TickData(
                instigator_origin_id="origin",
                instigator_name="inbox",
                instigator_type=InstigatorType.SENSOR,
                status=TickStatus.FAILURE,
                timestamp=1.0,
                error=failure,
                selector_id="selector",
            )
        )
        (tick,) = instance.get_ticks("origin", "selector")
        instance.report_runless_asset_event(
            dg.AssetMaterialization("faces", partition=batch, metadata={"said": batch})
        )
        done = instance.get_materialized_partitions(dg.AssetKey("faces"))
        newest = instance.get_latest_materialization_event(dg.AssetKey("faces"))
    assert tick.error == SerializableErrorInfo("no ***", ["  ***\n"], "KeyError")
    assert done == {batch}
    assert newest.asset_materialization.metadata["said"].value == "***"
    assert planted_in(home.root) == []


def test_console__failure_masked(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.definitions import defs

    console = defs.resolve_job_def("ingest").loggers["console"]
    context = dg.build_init_logger_context({"name": "planted", "log_level": "INFO"})
    console.logger_fn(context).error("no answer to %s from %s", WORDS["token"], WORDS["value"])
    assert "no answer to *** from ***" in capsys.readouterr().err
