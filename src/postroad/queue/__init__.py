"""A generic at-least-once queue on Redis or Valkey: lanes, gates, leases. It contains nothing about email.

This is the public interface, with `postroad.queue.metrics` for Prometheus. The modules:

==============  =====================================================================================
`types`         jobs, lanes, verdicts, options
`gates`         limits and pauses of gates and groups
`blocking`      which gates admit no job now, and why
`queue`         `Queue`: open, enqueue, claim, mark, settle
`events`        the event stream and its consumer groups
`inspect`       state, history and explanation of one job
`recovery`      dead letters, uncertain jobs
`stats`         counts of the queue
`processes`     heartbeats of workers and other processes
`audit`         the invariants
`worker`        `Worker`: claims, settles, drains
`job_runner`    tasks that run the handler of a worker, and renew its leases
`lease`         the lease that a handler gets
`watchdog`      reconnects a worker that is idle while jobs are ready
`metrics`       Prometheus
`scripts`       one method for each script in `lua/`
`codec`         what scripts read and return
`redis`         url, discovery, client, errors, server: how the server is found and checked
==============  =====================================================================================

A job passes through::

    enqueue ──> scheduled ──due──> lane ──claim──> in flight ──settle──> ended ──acknowledge──> forgotten
                    ^               ^  (all gates)   │    │
                    │               ├── Release ─────┤    ├── Dead ──> dead letter ──replay──> lane
                    └── Retry, Defer ────────────────┘    └── lease expired after mark ──> uncertain ──resolve──> any

and a call through::

    Worker ──> Queue ──> codec ──> Scripts ──> redis.client ──> lua/*.lua on the server
"""

from postroad.queue.blocking import BlockingGate, BlockKind, rate_in_words
from postroad.queue.events import Event, EventKind
from postroad.queue.gates import FOREVER_MS, Gate, GateState, Quota, Rate
from postroad.queue.inspect import Explanation, JobDetails, explain
from postroad.queue.job_runner import Handle, Prepare
from postroad.queue.lease import Lease, LeaseLostError
from postroad.queue.processes import Beat, Process, beating, this_process
from postroad.queue.queue import Queue
from postroad.queue.recovery import DeadLetter, UncertainJob
from postroad.queue.redis.server import Health, ServerFinding, forget_shards, inspect_servers
from postroad.queue.stats import GroupLag, QueueStats, ServerUsage
from postroad.queue.types import (
    Batch,
    Cancel,
    ClaimedJob,
    Dead,
    Defer,
    Done,
    Enqueued,
    Job,
    JobClass,
    JobState,
    Lane,
    QueueOptions,
    Reaped,
    Release,
    Retention,
    Retry,
    RetryPolicy,
    SettleResult,
    Uncertain,
    Verdict,
)
from postroad.queue.worker import Worker, WorkerOptions, WorkerReport

__all__ = [
    "FOREVER_MS",
    "Batch",
    "Beat",
    "BlockKind",
    "BlockingGate",
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
    "Health",
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
    "QueueOptions",
    "QueueStats",
    "Quota",
    "Rate",
    "Reaped",
    "Release",
    "Retention",
    "Retry",
    "RetryPolicy",
    "ServerFinding",
    "ServerUsage",
    "SettleResult",
    "Uncertain",
    "UncertainJob",
    "Verdict",
    "Worker",
    "WorkerOptions",
    "WorkerReport",
    "beating",
    "explain",
    "forget_shards",
    "inspect_servers",
    "rate_in_words",
    "this_process",
]
