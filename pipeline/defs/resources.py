"""What assets are handed: the home with its settings."""

import logging
from functools import partial

import dagster as dg
from pydantic import SecretStr

from pipeline import settings
from pipeline.execution import map_items
from warehouse.masking import mask, remember
from warehouse.storage import mirror
from warehouse.storage.home import Home


class Workplace(dg.ConfigurableResource):
    """Settings and home, read from the environment on every call.

    Nothing is read at import: the same definitions serve every home.
    """

    def settings(self) -> settings.Settings:
        given = settings.load()
        for _, value in given:
            if isinstance(value, SecretStr):
                remember(value.get_secret_value())
        given.apply_umask()
        return given

    def home(self) -> Home:
        place = self.settings().place
        mirror.sync(place.root)
        return place

    def each(self) -> partial:
        """Return ``map_items`` for functions that use every core themselves."""
        given = self.settings()
        return partial(
            map_items,
            engine=given.engine,
            workers=given.workers,
            needs=given.needs,
            over="machines",
        )


@dg.logger(
    config_schema=dg.colored_console_logger.config_schema,
    description="Dagster's console logger, without secrets.",
)
def masked_console(context: dg.InitLoggerContext) -> logging.Logger:
    """Mask secrets in tracebacks on the console.

    Services store console output; the home's instance masks only the home.
    """
    console = dg.colored_console_logger.logger_fn(context)
    for handler in console.handlers:
        if not isinstance(handler.formatter, _Masked):
            handler.setFormatter(_Masked(handler.formatter or logging.Formatter()))
    return console


class _Masked(logging.Formatter):
    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return mask(self.inner.format(record))
