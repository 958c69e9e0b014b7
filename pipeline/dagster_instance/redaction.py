"""Dagster instance that stores no secrets.

Errors, logs and output of steps, checks, sensors and plug-ins pass through here on their way to
the event log, the ticks and the captured output. Types, line numbers and causes stay. Secrets
that ``warehouse.masking`` knows are masked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import yaml
from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef, compute_logs_directory
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import (
    IO_TYPE_EXTENSION,
    LocalComputeLogManager,
)
from dagster._serdes import ConfigurableClassData, deserialize_value, serialize_value

from warehouse.masking import mask
from warehouse.storage import atomic

if TYPE_CHECKING:
    from dagster._core.events.log import EventLogEntry
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.scheduler.instigation import InstigatorTick, TickData
    from dagster._daemon.types import DaemonHeartbeat

Record = TypeVar("Record")

_TEXTS = {"message", "user_message", "description", "skip_reason"}
"""Fields with text for people. Keys of assets, batches and runs are never masked: a batch name may
look like a token, and Dagster must recognise it."""

_KINDS = {"__class__", "__enum__"}
_BLOCK = 1 << 22


class MaskedInstance(DagsterInstance):
    """Instance class of ``dagster.yaml``, used by servers and their runs."""

    @classmethod
    def config_schema(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def config_defaults(cls, base_dir: str) -> Mapping[str, ConfigurableClassData | None]:
        folder = yaml.dump({"base_dir": compute_logs_directory(base_dir)})
        logs = ConfigurableClassData(__name__, MaskedLogs.__name__, folder)
        return {**InstanceRef.config_defaults(base_dir), "compute_logs": logs}

    def handle_new_event(self, event: EventLogEntry, **how: Any) -> None:
        super().handle_new_event(masked(event), **how)

    def store_event(self, event: EventLogEntry) -> None:
        super().store_event(masked(event))

    def create_tick(self, tick_data: TickData) -> InstigatorTick:
        return super().create_tick(masked(tick_data))

    def update_tick(self, tick: InstigatorTick) -> InstigatorTick:
        return super().update_tick(masked(tick))

    def add_backfill(self, partition_backfill: PartitionBackfill) -> None:
        super().add_backfill(masked(partition_backfill))

    def update_backfill(self, partition_backfill: PartitionBackfill) -> None:
        super().update_backfill(masked(partition_backfill))

    def add_daemon_heartbeat(self, daemon_heartbeat: DaemonHeartbeat) -> None:
        super().add_daemon_heartbeat(masked(daemon_heartbeat))


class MaskedLogs(LocalComputeLogManager):
    """What steps and sensors print, masked as soon as they have ended.

    While a step is at work its file holds what was printed: Dagster points the streams of the
    process at it, so nothing stands in between.
    """

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Any
    ) -> MaskedLogs:
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        try:
            with super().capture_logs(log_key) as context:
                yield context
        finally:
            for extension in IO_TYPE_EXTENSION.values():
                mask_file(Path(self.get_captured_local_path(log_key, extension)))

    @contextmanager
    def open_log_stream(
        self, log_key: Sequence[str], io_type: ComputeIOType
    ) -> Iterator[IO | None]:
        try:
            with super().open_log_stream(log_key, io_type) as stream:
                yield stream
        finally:
            mask_file(Path(self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[io_type])))


def masked(record: Record) -> Record:
    """Return an event, tick, backfill or heartbeat with secrets masked."""
    written = json.loads(serialize_value(record))  # type: ignore[arg-type]
    clean = _clean(written, text=False)
    return record if clean == written else deserialize_value(json.dumps(clean))  # type: ignore[return-value]


def mask_file(path: Path) -> None:
    """Rewrite a text file with secrets masked, if it holds any."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as lines:
        if all(mask(text) == text for text in _blocks(lines)):
            return
        lines.seek(0)
        with (
            atomic.replace_file(path) as draft,
            open(draft, "w", encoding="utf-8", errors="surrogateescape", newline="") as sink,
        ):
            sink.writelines(map(mask, _blocks(lines)))


def mask_run(storage: Path, run_id: str) -> None:
    """Mask what a run printed whose process died before it could be done."""
    for extension in IO_TYPE_EXTENSION.values():
        for path in (storage / run_id).rglob(f"*.{extension}"):
            mask_file(path)


def _blocks(lines: IO[str]) -> Iterator[str]:
    while block := lines.readlines(_BLOCK):
        yield "".join(block)


def _clean(value: Any, *, text: bool) -> Any:
    if isinstance(value, str):
        return mask(value) if text else value
    if isinstance(value, list):
        return [_clean(item, text=text) for item in value]
    if not isinstance(value, dict):
        return value
    kind = str(value.get("__class__", ""))
    inner = text or kind == "SerializableErrorInfo" or "Metadata" in kind
    return {
        key: item if key in _KINDS else _clean(item, text=inner or key in _TEXTS)
        for key, item in value.items()
    }
