"""Every state, gate, pause, rejection and effect that exists has a sentence, and every cause is documented."""

from __future__ import annotations

import ast
import re
from itertools import product
from string import Formatter

import pytest

from postroad.delivery.admission_cause import AdmissionCause
from postroad.delivery.result import Pause
from postroad.explain.cause import (
    ADMISSION_CAUSES,
    BLOCK_CAUSES,
    CAMPAIGN_CAUSES,
    CAUSES,
    PAUSED_GATES,
    STATES,
    DelayCause,
    block_cause,
    gate_subject,
)
from postroad.explain.charge import Charge
from postroad.explain.hold import TouchHold
from postroad.explain.story import EnrolmentStory, MessageStory, Story
from postroad.explain.timeline import EFFECTS, TimelineEntry, TimelineKind
from postroad.gates.name import GateKind, GateName, Receiver
from postroad.queue import BlockKind
from postroad.settings.types import RateSetting
from postroad.store.bounce import BounceEffectKind
from postroad.store.campaign import CampaignState
from postroad.store.frequency import FrequencyHold
from postroad.store.ledger import TouchState
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/reference/explain.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "members"),
    [
        (CAUSES, DelayCause),
        (STATES, TouchState),
        (CAMPAIGN_CAUSES, CampaignState),
        (ADMISSION_CAUSES, AdmissionCause),
        (BLOCK_CAUSES, BlockKind),
        (PAUSED_GATES, Pause),
        (EFFECTS, BounceEffectKind),
    ],
    ids=["causes", "states", "campaigns", "admission", "limits of gates", "pauses", "effects"],
)
def test_table_has_a_row_for_each_member(table: dict[object, object], members: type) -> None:
    assert set(table) == set(members)  # type: ignore[call-overload]


def test_every_cause_has_a_sentence_and_a_label() -> None:
    for cause, text in CAUSES.items():
        assert text.sentence.endswith("."), cause
        assert text.label, cause
        assert not text.label.endswith("."), cause
        assert not text.remedy or text.remedy.endswith("."), cause
    labels = [text.label for text in CAUSES.values()]
    assert len(set(labels)) == len(labels)


def _gate(kind: GateKind) -> str:
    receiver = Receiver("google") if kind in (GateKind.PROVIDER, GateKind.WARMUP) else None
    return str(GateName(kind=kind, of="" if kind is GateKind.QUEUE else "x", receiver=receiver))


def test_every_kind_of_gate_with_every_limit_has_a_subject_and_a_cause() -> None:
    subjects = set()
    for kind, block in product(GateKind, BlockKind):
        gate = _gate(kind)
        assert GateName.parse(gate) is not None
        assert "gate" in "".join(
            field or "" for _, field, _, _ in Formatter().parse(CAUSES[block_cause(gate, block)].sentence)
        ) or (block_cause(gate, block) is DelayCause.SENDER_HOLD)
        subjects.add(gate_subject(gate))
    assert len(subjects) == len(GateKind)
    assert gate_subject("provider:google") == "all senders at google"
    assert gate_subject("something else") == "set by an operator"


def test_every_pause_after_a_reply_is_the_pause_of_a_gate_with_a_subject() -> None:
    for pause in Pause:
        assert gate_subject(_gate(PAUSED_GATES[pause]))


def test_an_admission_cause_is_recognised_in_the_text_of_an_event() -> None:
    for cause in AdmissionCause:
        assert AdmissionCause.of(cause) is cause
        assert AdmissionCause.of(f"{cause}: more") is cause
    assert AdmissionCause.of("greylisted, so far") is None
    over = FrequencyHold("normal", RateSetting(count=3, per_ms=1), skip=False, until=None)
    assert AdmissionCause.of(over.cause) is AdmissionCause.OVER_FREQUENCY
    assert AdmissionCause.of(over._replace(cap=None).cause) is AdmissionCause.NO_FREQUENCY_CLASS


ADMISSION = ("src/postroad/delivery/admit.py", "src/postroad/delivery/frequency.py")
VERDICTS = ("Defer", "Cancel", "Uncertain", "cancel_with")


@pytest.mark.parametrize("file", ADMISSION)
def test_a_cause_of_the_admission_is_never_a_text_of_its_own(file: str) -> None:
    """A new cause is a member of `AdmissionCause`, which has a row in the table, or the test above fails."""
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in VERDICTS
    ]
    assert calls
    for call in calls:
        causes = [keyword.value for keyword in call.keywords if keyword.arg == "cause"] or call.args[1:]
        [cause] = causes
        first = cause.values[0] if isinstance(cause, ast.JoinedStr) else cause
        assert not isinstance(first, ast.Constant), ast.unparse(call)


def test_causes_and_kinds_are_documented() -> None:
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", PAGE, re.MULTILINE))
    assert {cause.value for cause in DelayCause} <= documented
    assert {kind.value for kind in TimelineKind} <= documented
    shapes = (Story, EnrolmentStory, MessageStory, TouchHold, Charge, TimelineEntry)
    fields = {name for shape in shapes for name in shape.__struct_fields__}
    assert documented == {*map(str, DelayCause), *map(str, TimelineKind), *fields}
