"""What Snakemake's SLURM plugin needs to outlast a controller that is away."""

import shutil
import sys


def remember_min_job_age() -> None:
    """Let the plugin remember how long SLURM keeps finished jobs (MinJobAge).

    It asks the controller before each look at its jobs and, without an answer, looks with ``sacct``
    from then on. Where there is no accounting database, that look fails for as many times as
    ``slurm-status-attempts`` allows, long after the controller is back.
    """
    plugin = sys.modules.get("snakemake_executor_plugin_slurm")
    if plugin is None or shutil.which("scontrol") is None:
        return
    ask = plugin.get_min_job_age
    known = ask()
    plugin.get_min_job_age = lambda: ask() or known
