"""Code location of Dagster: all assets, checks, jobs and sensors."""

import warnings

import dagster as dg

from pipeline import defs as package
from pipeline.defs.resources import Workplace, masked_console

with warnings.catch_warnings():
    # The package loader is a preview. Dagster's project loader would need a pyproject.toml
    # beside the installed packages.
    warnings.simplefilter("ignore", dg.PreviewWarning)
    defs = dg.load_definitions_from_package_module(
        package,
        resources={"workplace": Workplace()},
        loggers={"console": masked_console},
        # Every step in this process: a process per step costs seconds of imports.
        executor=dg.in_process_executor,
    )
