"""A generic at-least-once queue on Redis or Valkey: lanes, gates, leases. It knows nothing of email."""

from postroad.queue.events import Event, EventKind
from postroad.queue.explain import Explanation
from postroad.queue.find import JobDetails
from postroad.queue.gates import FOREVER_MS, Gate, GateState, Quota, Rate
from postroad.queue.job_runner import Handle, Prepare
from postroad.queue.jobs import (
    Batch,
    ClaimedJob,
    Enqueued,
    Job,
    JobClass,
    JobState,
    Lane,
    Reaped,
    SettleResult,
)
from postroad.queue.keep import Retention
from postroad.queue.lease import Lease, LeaseLostError
from postroad.queue.processes import Beat, Process, beating, this_process
from postroad.queue.queue import Queue
from postroad.queue.redis.server import forget_shards
from postroad.queue.standing import DeadLetter, GroupLag, QueueStats, UncertainJob
from postroad.queue.verdicts import (
    Cancel,
    Dead,
    Defer,
    Done,
    Release,
    Retry,
    RetryPolicy,
    Uncertain,
    Verdict,
)
from postroad.queue.worker import Worker, WorkerReport

__all__ = [
    "FOREVER_MS",
    "Batch",
    "Beat",
    "Cancel",
    "ClaimedJob",
    "Dead",
    "DeadLetter",
    "Defer",
    "Done",
    "Enqueued",
    "Event",
    "EventKind",
    "Explanation",
    "Gate",
    "GateState",
    "GroupLag",
    "Handle",
    "Job",
    "JobClass",
    "JobDetails",
    "JobState",
    "Lane",
    "Lease",
    "LeaseLostError",
    "Prepare",
    "Process",
    "Queue",
    "QueueStats",
    "Quota",
    "Rate",
    "Reaped",
    "Release",
    "Retention",
    "Retry",
    "RetryPolicy",
    "SettleResult",
    "Uncertain",
    "UncertainJob",
    "Verdict",
    "Worker",
    "WorkerReport",
    "beating",
    "forget_shards",
    "this_process",
]
