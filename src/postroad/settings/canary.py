"""Where canaries go, and whose word on them counts."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field

from postroad.settings.bounce import SourceSettings
from postroad.settings.values import DurationMs, HostName, MailAddress, Section


class CanarySettings(Section):
    """A mailbox of the operator's own, at a receiver that says how a message was authenticated."""

    address: MailAddress = Field(description="address of the mailbox")
    authserv_id: HostName = Field(description="the host whose Authentication-Results count (RFC 8601 §2.5)")
    mailbox: SourceSettings = Field(description="where the mailbox is read: a Maildir or an IMAP server")
    wait_ms: DurationMs = Field(default=300_000, ge=1_000, le=3_600_000, description="for one to arrive")
    look_ms: DurationMs = Field(default=5_000, ge=100, le=600_000, description="between two looks into the mailbox")

    def relative_to(self, base: Path) -> Self:
        """Return the same with its paths relative to a folder."""
        return self.model_copy(update={"mailbox": self.mailbox.relative_to(base)})
