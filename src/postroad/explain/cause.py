"""The table of everything that keeps a message from leaving: one row for each cause, one sentence for each state.

To add a cause, add a member to `DelayCause`, its row to `CAUSES`, and a finder to `postroad.explain.holds.FINDERS` for
a message that waits now. A cause whose past the ledger knows also yields intervals in `postroad.explain.intervals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from postroad.delivery.admission_cause import AdmissionCause
from postroad.delivery.result import Pause
from postroad.gates.name import GateKind, GateName
from postroad.queue import BlockKind
from postroad.store.campaign import CampaignState
from postroad.store.ledger import TouchState


class DelayCause(StrEnum):
    """Why a message has not left. Of several at one time, the first in this order is charged."""

    SUPPRESSED = "suppressed"
    CAMPAIGN_ENDED = "campaign_ended"
    CAMPAIGN_DRAFT = "campaign_draft"
    CAMPAIGN_PAUSED = "campaign_paused"
    EXIT = "exit"
    ROLLOUT = "rollout"
    UNKNOWN = "unknown"
    DEAD = "dead"
    DECISION = "decision"
    COHORT_PAUSED = "cohort_paused"
    FREQUENCY_SKIP = "frequency_skip"
    FREQUENCY_CLASS = "frequency_class"
    FREQUENCY = "frequency"
    SENDER_HOLD = "sender_hold"
    GATE_PAUSED = "gate_paused"
    DEFERRAL = "deferral"
    POSTPONED = "postponed"
    RECHECK = "recheck"
    WINDOW = "window"
    HOLIDAY = "holiday"
    WARMUP_HOURS = "warmup_hours"
    WARMUP_CAP = "warmup_cap"
    QUOTA = "quota"
    RATE = "rate"
    CONCURRENCY = "concurrency"
    NOT_ENQUEUED = "not_enqueued"
    NO_JOB = "no_job"
    NOT_RECORDED = "not_recorded"
    NO_WORKER = "no_worker"
    SENDING = "sending"
    SCHEDULE = "schedule"
    TURN = "turn"


class CauseText(NamedTuple):
    """How a cause is described.

    ``sentence``: for a message that it holds now, with fields in braces. ``label``: for the time that it took.
    ``remedy``: what ends it, with the same fields; empty: it ends by itself.
    """

    sentence: str
    label: str
    remedy: str = ""


CAUSES: Final[Mapping[DelayCause, CauseText]] = {
    DelayCause.SUPPRESSED: CauseText(
        "{address} is suppressed since {since}: {reason} ({source}). It ends as suppressed when a worker claims it.",
        "its recipient is suppressed",
    ),
    DelayCause.CAMPAIGN_ENDED: CauseText(
        "Campaign {campaign} is {state}: it ends as cancelled.", "its campaign has ended"
    ),
    DelayCause.CAMPAIGN_DRAFT: CauseText(
        "Held: campaign {campaign} is a draft.",
        "its campaign was not launched",
        "`postroad campaign launch {campaign}` launches it.",
    ),
    DelayCause.CAMPAIGN_PAUSED: CauseText(
        "Held: campaign {campaign} is paused by {by}, until `postroad campaign resume`.",
        "its campaign was paused",
        "`postroad campaign resume {campaign}` resumes it.",
    ),
    DelayCause.EXIT: CauseText(
        "It is cancelled when a worker claims it: its recipient matches the exit condition of campaign {campaign} "
        "({reason}).",
        "its recipient matches the exit condition of its campaign",
    ),
    DelayCause.ROLLOUT: CauseText(
        "Withheld by the rollout of campaign {campaign}: it is in share {share} of {shares} ({percent}). {reason}.",
        "its share of the rollout was not let go",
        "`postroad campaign widen {campaign}` lets the next share go.",
    ),
    DelayCause.UNKNOWN: CauseText(
        "It is unknown whether it was sent: {reason}. It is not sent again automatically.",
        "it was unknown whether it was sent",
        "`postroad unknown resolve {touch} --as accepted`, or `--as not-sent`, settles it.",
    ),
    DelayCause.DEAD: CauseText(
        "It is a dead letter: {reason}. It is not sent again automatically.",
        "it was a dead letter or expired, until it was sent again",
        "`postroad queue replay {touch}` sends it again.",
    ),
    DelayCause.DECISION: CauseText(
        "Held: it waits for the decision on the variants of step {step}, which is made at {until} at the latest.",
        "it waited for the decision on the variants of its step",
        "`postroad campaign variants {campaign}` shows the test.",
    ),
    DelayCause.COHORT_PAUSED: CauseText(
        "Held: its cohort is paused ({evidence}), until the pause is lifted: {reason}.",
        "its cohort was paused",
        "`postroad cohort list` shows the pause, `postroad cohort resume` lifts it.",
    ),
    DelayCause.FREQUENCY_SKIP: CauseText(
        "It is skipped when a worker claims it: its recipient is {reason}.",
        "its campaign skips recipients over the frequency cap",
    ),
    DelayCause.FREQUENCY_CLASS: CauseText(
        "Held: the settings have no frequency class {name}.",
        "its frequency class was not in the settings",
        "Add it to [frequency], or change the campaign's file and apply it again.",
    ),
    DelayCause.FREQUENCY: CauseText(
        "Held: its recipient is {reason}, until {end}.",
        "its recipient was over the frequency cap",
    ),
    DelayCause.SENDER_HOLD: CauseText(
        "Sender {sender} is held while its DNS fails: {reason}.",
        "its sender was held because of its DNS",
        "`postroad dns senders` shows what to fix.",
    ),
    DelayCause.GATE_PAUSED: CauseText(
        "Held by gate {gate} ({subject}): {why}.",
        "a gate was paused",
        "`postroad queue gate resume {gate}` resumes it.",
    ),
    DelayCause.DEFERRAL: CauseText(
        "It was deferred at {since} after attempt {attempt}: {reason}.", "the receiver or the route deferred it"
    ),
    DelayCause.POSTPONED: CauseText("It was postponed: it goes at {until}.", "an operator postponed it"),
    DelayCause.RECHECK: CauseText(
        "A worker held it back at {since} ({reason}). It is checked again at {until}.", "held back by a worker"
    ),
    DelayCause.WINDOW: CauseText(
        "Outside the campaign's hours in the recipient's time zone ({zone}): they open at {local} there, {until}.",
        "outside the campaign's hours",
    ),
    DelayCause.HOLIDAY: CauseText(
        "On a holiday or a day off in the recipient's time zone ({zone}): mail may leave at {local} there, {until}.",
        "on a holiday or a day off",
    ),
    DelayCause.WARMUP_HOURS: CauseText("Held by gate {gate} ({subject}): {why}.", "outside the hours of the warmup"),
    DelayCause.WARMUP_CAP: CauseText(
        "Held by gate {gate} ({subject}): {why}.",
        "the warmup cap of the day was used up",
        "`postroad warmup status` shows the caps.",
    ),
    DelayCause.QUOTA: CauseText("Held by gate {gate} ({subject}): {why}.", "waiting for a quota"),
    DelayCause.RATE: CauseText("Held by gate {gate} ({subject}): {why}.", "waiting for a rate"),
    DelayCause.CONCURRENCY: CauseText("Held by gate {gate} ({subject}): {why}.", "waiting for a concurrency limit"),
    DelayCause.NOT_ENQUEUED: CauseText(
        "It is due and not enqueued: the last pass over all campaigns was {last}.",
        "it was not enqueued",
        "`postroad advance` makes a pass. `postroad doctor` shows why the flow advance-campaigns does not.",
    ),
    DelayCause.NO_JOB: CauseText(
        "The ledger has it as {state}, but the queue has no job of it.",
        "the queue had lost its job",
        "`postroad queue rebuild` creates the job; the maintenance flow does so every ten minutes.",
    ),
    DelayCause.NOT_RECORDED: CauseText(
        "It ended in the queue as {reason} at {since}. The recorder has not written it to the ledger yet.",
        "its outcome was not recorded",
        "`postroad processes` shows whether a recorder is alive.",
    ),
    DelayCause.NO_WORKER: CauseText(
        "No worker of {queue} is alive.", "no worker was alive", "`postroad worker {queue}` starts one."
    ),
    DelayCause.SENDING: CauseText("A worker is sending it, attempt {attempt}, until {until}.", "it was being sent"),
    DelayCause.SCHEDULE: CauseText("It is scheduled, due at {until}.", "it was not due"),
    DelayCause.TURN: CauseText(
        "Nothing holds it: it goes when the lane's turn comes.",
        "its turn, or a cause that is not recorded",
    ),
}
"""Each cause, in words."""


class StateText(NamedTuple):
    """What the state of a touch means. ``sentence``: with the fields ``at`` and ``reply``. ``remedy``: what to do."""

    sentence: str
    remedy: str = ""


STATES: Final[Mapping[TouchState, StateText]] = {
    TouchState.AWAITING: StateText("Due at {due}. It waits for the decision on the variants of its step."),
    TouchState.WITHHELD: StateText("Withheld by the rollout of its campaign."),
    TouchState.PLANNED: StateText("Planned: due at {due}{reply}. It is enqueued shortly before."),
    TouchState.QUEUED: StateText("It is in the queue, due at {due}."),
    TouchState.SENDING: StateText("A worker is sending it."),
    TouchState.DEFERRED: StateText("Deferred{reply}."),
    TouchState.ACCEPTED: StateText("Accepted by the receiver{at}{reply}."),
    TouchState.BOUNCED: StateText("Bounced{at}{reply}.", "A bounce is not sent again."),
    TouchState.SUPPRESSED: StateText("Not sent: its recipient is suppressed. It ended{at}."),
    TouchState.CANCELLED: StateText("Cancelled{at}{reply}."),
    TouchState.SKIPPED: StateText("Skipped{at}{reply}."),
    TouchState.EXPIRED: StateText("Expired{at}: it was not delivered in time{reply}."),
    TouchState.DEAD: StateText("Dead{at}{reply}.", "`postroad queue replay {touch}` sends it again."),
    TouchState.UNKNOWN: StateText(
        "Unknown{at}{reply}. It may have arrived, and is not sent again automatically.",
        "`postroad unknown resolve {touch} --as accepted`, or `--as not-sent`, settles it.",
    ),
}
"""Each state of a touch, in words."""

CAMPAIGN_CAUSES: Final[Mapping[CampaignState, DelayCause | None]] = {
    CampaignState.RUNNING: None,
    CampaignState.DRAFT: DelayCause.CAMPAIGN_DRAFT,
    CampaignState.PAUSED: DelayCause.CAMPAIGN_PAUSED,
    CampaignState.FINISHED: DelayCause.CAMPAIGN_ENDED,
    CampaignState.CANCELLED: DelayCause.CAMPAIGN_ENDED,
}
"""What each state of a campaign does to its messages. None: nothing."""

ADMISSION_CAUSES: Final[Mapping[AdmissionCause, DelayCause]] = {
    AdmissionCause.OUTSIDE_HOURS: DelayCause.WINDOW,
    AdmissionCause.HOLIDAY: DelayCause.HOLIDAY,
    AdmissionCause.COHORT_PAUSED: DelayCause.COHORT_PAUSED,
    AdmissionCause.OVER_FREQUENCY: DelayCause.FREQUENCY,
    AdmissionCause.NO_FREQUENCY_CLASS: DelayCause.FREQUENCY_CLASS,
    AdmissionCause.EXIT: DelayCause.EXIT,
    AdmissionCause.CAMPAIGN_PAUSED: DelayCause.CAMPAIGN_PAUSED,
    AdmissionCause.CAMPAIGN_CANCELLED: DelayCause.CAMPAIGN_ENDED,
    AdmissionCause.STEP_RECALLED: DelayCause.CAMPAIGN_ENDED,
    AdmissionCause.SUPPRESSED: DelayCause.SUPPRESSED,
    AdmissionCause.ENDED: DelayCause.CAMPAIGN_ENDED,
    AdmissionCause.OTHER_SENDER: DelayCause.NO_JOB,
    AdmissionCause.OTHER_VERSION: DelayCause.NOT_ENQUEUED,
    AdmissionCause.CLAIMED_BEFORE: DelayCause.UNKNOWN,
    AdmissionCause.LEDGER_MOVED: DelayCause.TURN,
    AdmissionCause.NOT_IN_LEDGER: DelayCause.NO_JOB,
}
"""The cause of each rejection by the admission."""

BLOCK_CAUSES: Final[Mapping[BlockKind, DelayCause]] = {
    BlockKind.PAUSE: DelayCause.GATE_PAUSED,
    BlockKind.CONCURRENCY: DelayCause.CONCURRENCY,
    BlockKind.QUOTA: DelayCause.QUOTA,
    BlockKind.RATE: DelayCause.RATE,
}
"""The cause of each limit of a gate. `block_cause` has the exceptions."""

PAUSED_GATES: Final[Mapping[Pause, GateKind]] = {
    Pause.SENDER: GateKind.SENDER,
    Pause.SENDER_AT_PROVIDER: GateKind.PROVIDER,
    Pause.ROUTE: GateKind.ROUTE,
}
"""The kind of gate that each pause after a reply pauses."""

_SUBJECTS: Final[Mapping[GateKind, str]] = {
    GateKind.QUEUE: "all mail of the queue",
    GateKind.CAMPAIGN: "campaign {of}",
    GateKind.HOLD: "the hold of sender {of}",
    GateKind.SENDER: "sender {of} everywhere",
    GateKind.PROVIDER: "sender {of} at {receiver}",
    GateKind.WARMUP: "the warmup of {of} at {receiver}",
    GateKind.ROUTE: "route {of}",
}


def block_cause(gate: str, kind: BlockKind) -> DelayCause:
    """Return the cause of a gate that admits no job."""
    name = GateName.parse(gate)
    match name.kind if name else None, kind:
        case GateKind.HOLD, BlockKind.PAUSE:
            return DelayCause.SENDER_HOLD
        case GateKind.WARMUP, BlockKind.QUOTA:
            return DelayCause.WARMUP_CAP
        case _:
            return BLOCK_CAUSES[kind]


def gate_subject(gate: str) -> str:
    """Return what a gate limits, in words."""
    name = GateName.parse(gate)
    if name is None:
        return "set by an operator"
    if name.kind is GateKind.PROVIDER and not name.of:
        return f"all senders at {name.receiver}"
    return _SUBJECTS[name.kind].format(of=name.of, receiver=name.receiver)


def label_of(cause: DelayCause, detail: str) -> str:
    """Return how the time that a cause took is described."""
    label = CAUSES[cause].label
    return f"{label}: {detail}" if detail else label
