"""Flow parameters. Titles, descriptions and bounds become Prefect's form."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect.input import RunInput
from pydantic import BaseModel, ConfigDict, Field

from postroad.campaign.steps import NAME_PATTERN

NO_LINE_BREAK = "(?!\\n)"
"""Follows `$`, which in Python also matches before a final line break. The server validates forms with Python, its page
with JavaScript, and the flow with Rust, whose `$` only matches the end and which has no lookahead."""
Name = Annotated[str, Field(pattern=NAME_PATTERN, json_schema_extra={"pattern": NAME_PATTERN + NO_LINE_BREAK})]
ONE_LINE = r"^[^\r\n]*$"
Line = Annotated[str, Field(pattern=ONE_LINE, json_schema_extra={"pattern": ONE_LINE + NO_LINE_BREAK})]


class Params(BaseModel):
    """Parameters of a flow. Unknown fields are rejected: a misspelt one would silently have its default."""

    model_config = ConfigDict(extra="forbid")


class ImportParams(Params):
    """Parameters of `import-audience`."""

    audience: Name = Field(
        title="Audience",
        description="The list that receives these recipients. Those already on it are updated, and no one is removed.",
        examples=["newsletter"],
    )
    path: Line = Field(
        min_length=1,
        max_length=1024,
        title="CSV file",
        description=(
            "The file, relative to the worker's project folder: in `audiences`, or in the folder of a campaign. "
            "It needs an `email` column."
        ),
        examples=["audiences/newsletter.csv"],
    )


class CampaignParams(Params):
    """Parameters of `campaign`."""

    campaign: Name = Field(
        title="Campaign",
        description="The name of the campaign to send, as in its campaign.yaml.",
        examples=["welcome"],
    )
    asked_by: Line = Field(
        default="",
        max_length=200,
        title="Asked by",
        description="Your name, for the person who approves the launch, if it needs an approval.",
    )
    follow_seconds: int = Field(
        default=30,
        ge=0,
        le=3600,
        title="Watch for (seconds)",
        description=(
            "How long this run stays open to show the progress of delivery. Delivery does not depend on it and "
            "continues after the run."
        ),
    )


class WarmupParams(Params):
    """Parameters of `warmup`."""

    sender: Line = Field(
        min_length=1,
        max_length=100,
        title="Sender",
        description="The name of a sender in postroad.toml that has a warmup section.",
        examples=["news"],
    )


class DeadLetterParams(Params):
    """Parameters of `dead-letters`."""

    queue: Literal["email:send", "email:warmup", "bounce:process"] = Field(
        default="email:send",
        title="Queue",
        description="Their queue: messages that could not be sent, or returned mail that could not be processed.",
    )
    cause: Line | None = Field(
        default=None,
        max_length=200,
        title="Cause",
        description="Only those of this cause, as the list of an earlier run shows it. Empty: all causes.",
        examples=["connection failed"],
    )
    wait_hours: int = Field(
        default=24,
        ge=1,
        le=168,
        title="Wait for (hours)",
        description="How long the run waits to be resumed. After that it fails, and no message was sent again.",
    )


class ReplayApproval(RunInput):
    """The decision of the operator."""

    send_again: bool = Field(
        default=False,
        title="Send them again",
        description="On: every message on the list is sent again. Off: the list stays as it is.",
    )


class LaunchApproval(RunInput):
    """The decision of the person who approves or refuses a launch."""

    approve: bool = Field(
        default=False,
        title="Approve",
        description="On: the campaign is sent as described above. Off: it is refused, and stays a draft.",
    )
    by: Line = Field(
        min_length=1,
        max_length=200,
        title="Your name",
        description="Recorded with the decision, as it is written here.",
    )
    reason: Line = Field(default="", max_length=1000, title="Reason", description="Why it is refused.")
