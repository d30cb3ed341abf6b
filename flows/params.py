"""What a person fills in to start a run. Names, descriptions and bounds here are the form she sees."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect.input import RunInput
from pydantic import BaseModel, ConfigDict, Field

from postroad.campaign.definition import NAME_PATTERN

NO_LINE_BREAK = "(?!\\n)"
"""After `$`, which in Python also matches before a line break at the end. The server checks forms with Python, its page
with JavaScript, and the flow with Rust, whose `$` is the end and which has no such condition."""
Name = Annotated[str, Field(pattern=NAME_PATTERN, json_schema_extra={"pattern": NAME_PATTERN + NO_LINE_BREAK})]
ONE_LINE = r"^[^\r\n]*$"
Line = Annotated[str, Field(pattern=ONE_LINE, json_schema_extra={"pattern": ONE_LINE + NO_LINE_BREAK})]


class Params(BaseModel):
    """Refuses a field it does not know: a misspelt one would silently fall back to its default."""

    model_config = ConfigDict(extra="forbid")


class ImportParams(Params):
    """Which file becomes which audience."""

    audience: Name = Field(
        title="Audience",
        description="The list these people join. Those already on it are updated; nobody is removed.",
        examples=["newsletter"],
    )
    path: Line = Field(
        min_length=1,
        max_length=1024,
        title="CSV file",
        description=(
            "The file to read, seen from the worker's project folder: in `audiences`, or beside a campaign. "
            "It needs an `email` column."
        ),
        examples=["audiences/newsletter.csv"],
    )


class CampaignParams(Params):
    """Which campaign is sent, and how long the run stays to watch."""

    campaign: Name = Field(
        title="Campaign",
        description="The name of the campaign to send, as its campaign.yaml says it.",
        examples=["welcome"],
    )
    follow_seconds: int = Field(
        default=30,
        ge=0,
        le=3600,
        title="Watch for (seconds)",
        description=(
            "How long this run stays open to show messages being delivered. Delivery does not depend on it: "
            "what is still under way when the time is over goes on by itself."
        ),
    )


class WarmupParams(Params):
    """Whose warmup goes on by a day."""

    sender: Line = Field(
        min_length=1,
        max_length=100,
        title="Sender",
        description="The name of a sender in postroad.toml that has a warmup section.",
        examples=["news"],
    )


class DeadLetterParams(Params):
    """Which dead letters are looked at, and how long the run waits for an answer."""

    queue: Literal["email:send", "email:warmup", "bounce:process"] = Field(
        default="email:send",
        title="Queue",
        description="Where they lie: mail that could not be sent, or mail that came back and could not be judged.",
    )
    cause: Line | None = Field(
        default=None,
        max_length=200,
        title="Cause",
        description="Only those of this cause, spelt as the list of an earlier run shows it. Empty: of every cause.",
        examples=["connection failed"],
    )
    wait_hours: int = Field(
        default=24,
        ge=1,
        le=168,
        title="Wait for (hours)",
        description="How long the run waits to be resumed. After that it fails, and nothing was sent again.",
    )


class Approval(RunInput):
    """What somebody who has seen the list decides."""

    send_again: bool = Field(
        default=False,
        title="Send them again",
        description="On: everything on the list goes out once more. Off: it stays as it is.",
    )
