"""What assets are handed: the home with its settings."""

from functools import partial

import dagster as dg

from pipeline import settings
from pipeline.fanout import fan_out
from warehouse import store
from warehouse.home import Home


class Workplace(dg.ConfigurableResource):
    """Settings and home of this process, read from the environment when asked for.

    Nothing is read at import: the same definitions serve every home.
    """

    def settings(self) -> settings.Settings:
        return settings.load()

    def home(self) -> Home:
        place = self.settings().place
        store.refresh(place.root)
        return place

    def each(self) -> partial:
        """``fan_out`` on the engine of the settings, for work that fills a machine by itself."""
        given = self.settings()
        return partial(
            fan_out, engine=given.engine, workers=given.workers, needs=given.needs, over="machines"
        )


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(
        resources={"workplace": Workplace()},
        # One step per process costs seconds of imports, and the work fans out by itself.
        executor=dg.in_process_executor,
    )
