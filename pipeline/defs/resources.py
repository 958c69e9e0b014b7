"""What assets are handed: the home with its settings."""

import dagster as dg

from pipeline import settings
from warehouse.home import Home


class Workplace(dg.ConfigurableResource):
    """Settings and home of this process, read from the environment when asked for.

    Nothing is read at import: the same definitions serve every home.
    """

    def settings(self) -> settings.Settings:
        return settings.load()

    def home(self) -> Home:
        return self.settings().place


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(
        resources={"workplace": Workplace()},
        # One step per process costs seconds of imports, and the work fans out by itself.
        executor=dg.in_process_executor,
    )
