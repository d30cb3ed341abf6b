"""Flow runs as Prefect's HTTP API describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
"""Kinds of state in which a run has ended."""


@dataclass(frozen=True)
class RunState:
    """The state of a flow run.

    Attributes:
        kind: Prefect's type of state, such as `COMPLETED`.
        name: The name that Prefect's UI shows.
        message: The flow's own message.
    """

    kind: str
    name: str
    message: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """Return the state of Prefect's record of it."""
        return cls(record["type"], record["name"], record["message"] or "")

    @property
    def terminal(self) -> bool:
        """Whether the run has ended."""
        return self.kind in TERMINAL

    @property
    def completed(self) -> bool:
        return self.kind == "COMPLETED"


@dataclass(frozen=True, kw_only=True)
class FlowRun:
    """A flow run.

    Attributes:
        run_id: Its id.
        state: Its present state.
        parameters: The parameters of its flow.
        idempotency_key: The key with which it was started. None: without one.
    """

    run_id: str
    state: RunState
    parameters: Mapping[str, Any]
    idempotency_key: str | None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """Return the run of Prefect's record of it, which has a state."""
        return cls(
            run_id=record["id"],
            state=RunState.of(record["state"]),
            parameters=record["parameters"],
            idempotency_key=record.get("idempotency_key"),
        )
