"""Settings of canaries: their mailbox, and whose authentication results are trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field

from postroad.settings.bounce import SourceSettings
from postroad.settings.types import DurationMs, HostName, MailAddress, Section


class CanarySettings(Section):
    """A mailbox of the operator at a receiver that adds Authentication-Results."""

    address: MailAddress = Field(description="address of the mailbox")
    authserv_id: HostName = Field(description="host whose Authentication-Results are trusted (RFC 8601 §2.5)")
    mailbox: SourceSettings = Field(description="how the mailbox is read: a Maildir or an IMAP server")
    wait_ms: DurationMs = Field(default=300_000, ge=1_000, le=3_600_000, description="longest time until it arrives")
    look_ms: DurationMs = Field(default=5_000, ge=100, le=600_000, description="poll interval of the mailbox")

    def relative_to(self, base: Path) -> Self:
        """Return a copy whose relative paths are resolved against a folder."""
        return self.model_copy(update={"mailbox": self.mailbox.relative_to(base)})
