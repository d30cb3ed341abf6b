"""The job template of the work pool: what a worker starts for a flow run, and what a run may change of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

POOL: Final = "postroad"
COMMAND: Final = "sh -c 'umask 077 && exec python -m prefect.engine'"
"""What a worker executes for a run. Files that a flow makes are its owner's alone, whatever the umask of the worker.

With a command there is one process for a run, in its worker's process group. Left out, Prefect starts a second process
first, to resolve the flow's workspace, which takes 3 s. `python` is the one on the worker's PATH.
"""

JOB_TEMPLATE: Final[Mapping[str, Any]] = {
    # No `env`: Prefect merges a run's `env` into a mapping here, whether or not there is such a variable.
    "job_configuration": {"command": COMMAND, "stream_output": True, "working_dir": None},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
"""All of a job is fixed: no deployment, run or automation sets a variable of it."""

EXECUTING: Final = ("command", "env", "working_dir")
"""Fields of a job that decide which code a worker executes."""


def open_fields(template: Mapping[str, Any]) -> list[str]:
    """Return those fields of `EXECUTING` that a run may set under this template. Pure.

    A field may be set if its value contains a placeholder. `env` may also be set if it is a mapping, because Prefect
    merges the variable of that name into it. An empty template means Prefect's default, which leaves all of them open.
    """
    job: Mapping[str, Any] | None = template.get("job_configuration")
    if not job:
        return list(EXECUTING)
    return [name for name in EXECUTING if _takes_variable(job.get(name)) or isinstance(job.get(name), Mapping)]


def _takes_variable(value: object) -> bool:
    return isinstance(value, str) and "{{" in value
