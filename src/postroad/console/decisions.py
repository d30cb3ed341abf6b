"""What the pages say about decisions on undecided messages: buttons, questions and effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from postroad.app.undecided import Decision, decisions_for
from postroad.console.page_url import page_url
from postroad.printable import counted
from postroad.store.ledger import TouchState


@dataclass(frozen=True, kw_only=True)
class DecisionText:
    """How a decision is shown.

    Attributes:
        button: Label of the link to it, and of its button.
        question: The question before it. ``{what}``: the messages.
        extent: What becomes of the messages.
        effects: Sentences about what happens.
        done: What happened. ``{what}``: the messages, with their verb.
        dangerous: Whether it cannot be undone.
    """

    button: str
    question: str
    extent: str
    effects: tuple[str, ...]
    done: str
    dangerous: bool = False


_DROP: Final = DecisionText(
    button="Drop",
    question="Drop {what}?",
    extent="messages that are not sent again",
    effects=("They count as cancelled. This cannot be undone.",),
    done="Dropped: {what}.",
    dangerous=True,
)
TEXTS: Final[Mapping[tuple[TouchState, Decision], DecisionText]] = {
    (TouchState.UNKNOWN, Decision.DELIVERED): DecisionText(
        button="Delivered",
        question="Record {what} as delivered?",
        extent="messages that count as accepted",
        effects=("They are not sent again. Look for them first: in the receiver's log, or by asking a recipient.",),
        done="Recorded as delivered: {what}.",
    ),
    (TouchState.UNKNOWN, Decision.SEND_AGAIN): DecisionText(
        button="Send again",
        question="Send {what} again?",
        extent="messages that are sent again",
        effects=("A recipient whose message arrived after all gets it twice.",),
        done="To be sent again: {what}.",
    ),
    (TouchState.UNKNOWN, Decision.DROP): _DROP,
    (TouchState.DEAD, Decision.SEND_AGAIN): DecisionText(
        button="Send again",
        question="Send {what} again?",
        extent="messages that are sent again",
        effects=(
            "Correct the cause first, or they fail again.",
            "Messages to recipients whose reply ended the sequence are skipped.",
        ),
        done="To be sent again: {what}.",
    ),
    (TouchState.DEAD, Decision.DROP): _DROP,
}


def messages(count: int) -> str:
    """Return a number of messages as text."""
    return counted(count, "message")


def message_decisions(touch: int, state: TouchState, back: str) -> list[tuple[str, str]]:
    """Return label and URL of each decision about one message. ``back``: the page to return to."""
    return [
        (TEXTS[state, decision].button, page_url("messages", touch, "decide", decision=decision, back=back))
        for decision in decisions_for(state)
    ]


def cause_decisions(state: TouchState, cause: str) -> list[tuple[str, str]]:
    """Return label and URL of each decision about all messages of a cause."""
    return [
        (TEXTS[state, decision].button, page_url("undecided", "decide", state=state, cause=cause, decision=decision))
        for decision in decisions_for(state)
    ]


def rows_url(state: TouchState, cause: str) -> str:
    """Return the URL of the list of the messages of a cause."""
    return page_url("undecided", "messages", state=state, cause=cause)
