"""Names on the Prefect server, and the job template of the work pool: what a worker executes for a flow run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

POOL: Final = "postroad"
"""Name of the work pool."""
ALERTS: Final = "postroad: tell somebody what is paused or held back"
"""Name of the automation that sends alerts. It exists if the settings have an `alert_block`."""
COMMAND: Final = "sh -c 'umask 077 && exec python -m prefect.engine'"
"""What a worker executes for a run. Only the owner can read the files of a flow, whatever the umask of the worker.

With a command, a run is one process in its worker's process group. Without one, Prefect first starts a second process
to resolve the flow's workspace, which takes 3 s. `python` is the one on the worker's PATH.
"""

JOB_TEMPLATE: Final[Mapping[str, Any]] = {
    # No `env`: Prefect merges a run's `env` into a mapping here, whether or not there is such a variable.
    "job_configuration": {"command": COMMAND, "stream_output": True, "working_dir": None},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
"""Every field of a job is fixed: no deployment, run or automation can set one."""

EXECUTING: Final = ("command", "env", "working_dir")
"""Fields of a job that decide which code a worker executes."""


def open_fields(template: Mapping[str, Any]) -> list[str]:
    """Return the fields of `EXECUTING` that a run may set under this template.

    A field may be set if its value contains a placeholder. `env` may also be set if it is a mapping, because Prefect
    merges the variable of that name into it. An empty template means Prefect's default, which leaves all of them open.
    """
    job: Mapping[str, Any] | None = template.get("job_configuration")
    if not job:
        return list(EXECUTING)
    return [name for name in EXECUTING if _takes_variable(job.get(name)) or isinstance(job.get(name), Mapping)]


def _takes_variable(value: object) -> bool:
    return isinstance(value, str) and "{{" in value
