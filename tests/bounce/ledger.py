"""A ledger with helpers that add recipients and touches, and that process mails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from postroad.bounce.intake import digest_of
from postroad.bounce.mail_worker import parse_stored
from postroad.bounce.process import BounceRules, ProcessedMail, process
from postroad.bounce.readers import ReadMail
from postroad.bounce.report import Envelope
from postroad.bounce.report_mail import ReportRules, keep_reports
from postroad.bounce.report_worker import parse_reports
from postroad.mail.token import Purpose, TokenSigner
from postroad.settings import BounceSettings
from postroad.store.bounce import BounceMail, effects_of, save_mail
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from tests.bounce import mails
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch, touch_row

DOMAIN = "bounces.example.com"


@dataclass(frozen=True)
class LedgerFixture:
    """A database that inbound mail changes."""

    engine: sa.Engine
    signer: TokenSigner
    settings: BounceSettings = field(default_factory=BounceSettings)
    read: ReadMail = parse_stored
    reports: ReportRules = field(default_factory=lambda: ReportRules(read=parse_reports, domains=("acme.dev",)))

    def recipient(self, address: str | None = None) -> int:
        with write(self.engine) as connection:
            return add_recipient(connection, address)

    def touch(
        self, recipient: int, state: TouchState = TouchState.ACCEPTED, *, settled_at: datetime | None = NOW
    ) -> int:
        """A touch of a campaign of its own."""
        with write(self.engine) as connection:
            campaign, (step,) = add_campaign(connection)
            settled = settled_at if state.ended else None
            return add_touch(connection, campaign, step, state, recipient_id=recipient, settled_at=settled)

    def return_path(self, touch: int) -> str:
        return f"bounce+{self.signer.sign(Purpose.BOUNCE, touch)}@{DOMAIN}"

    def message_id(self, touch: int) -> str:
        return f"<{self.signer.sign(Purpose.MESSAGE_ID, touch)}@example.com>"

    def unsubscribe(self, touch: int) -> str:
        return f"unsubscribe+{self.signer.sign(Purpose.UNSUBSCRIBE, touch)}@{DOMAIN}"

    def keep(self, raw: bytes, envelope: Envelope | None = None, *, now: datetime = NOW) -> str:
        envelope = envelope or Envelope()
        digest = digest_of(raw, envelope)
        mail = BounceMail(
            digest=digest,
            received_at=now,
            raw=raw,
            source=envelope.source,
            mail_from=envelope.mail_from,
            recipient=envelope.recipient,
        )
        with write(self.engine) as connection:
            save_mail(connection, mail)
        return digest

    def process(self, raw: bytes, envelope: Envelope | None = None, *, now: datetime = NOW) -> ProcessedMail:
        digest = self.keep(raw, envelope, now=now)
        rules = BounceRules(signer=self.signer, settings=self.settings)
        [processed] = process(self.engine, [digest], rules=rules, read=self.read, now=now)
        assert processed is not None
        if processed.reports:
            keep_reports(self.engine, digest, self.reports, now)
        return processed

    def state(self, touch: int) -> TouchState:
        with read(self.engine) as connection:
            return touch_row(connection, touch).state

    def address_of(self, touch: int) -> str:
        """Return the address that a touch went to."""
        statement = sa.text(
            "SELECT address FROM recipient JOIN touch ON recipient_id = recipient.id WHERE touch.id = :id"
        )
        with read(self.engine) as connection:
            return str(connection.execute(statement, {"id": touch}).scalar_one())

    def dsn_of(self, touch: int, **more: str) -> bytes:
        """Return a DSN that came to a touch's return path, of the address that the touch went to."""
        return mails.dsn(to=self.return_path(touch), recipient=self.address_of(touch), **more)

    def address(self, recipient: int) -> str:
        with read(self.engine) as connection:
            statement = sa.text("SELECT address FROM recipient WHERE id = :id")
            return str(connection.execute(statement, {"id": recipient}).scalar_one())

    def suppressed(self) -> dict[str, str]:
        """Reasons by address."""
        with read(self.engine) as connection:
            rows = connection.execute(sa.text("SELECT address, reason FROM suppression"))
            return {row.address: row.reason for row in rows}

    def effects(self, raw: bytes, envelope: Envelope | None = None) -> Sequence[tuple[str, int]]:
        with read(self.engine) as connection:
            found = effects_of(connection, digest_of(raw, envelope or Envelope()))
        return [(kind.value, touch) for kind, touch, _ in found]
