"""Every page of the console with an example of each path parameter, and rows for the pages to show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlmodel import col

from postroad.app.api_keys import create_key
from postroad.bounce.classify import BounceClass
from postroad.clock import SystemClock
from postroad.console.registry import SCREENS
from postroad.console.screen import PUBLIC, ScreenRoute
from postroad.settings import AccessRole
from postroad.store.approval import Approval, ApprovalState, add_approval
from postroad.store.audit import Actor, record_act
from postroad.store.bounce import BounceEffectKind, BounceMail, add_effects, finish_mail, save_mail
from postroad.store.campaign import Campaign, CampaignState
from postroad.store.consent import NewConsent, record_consents
from postroad.store.console_access import SignIn, begin_session, save_user
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.recipient import AudienceImport, Refusal
from postroad.store.rollout import RolloutShare, ShareHold, add_shares, record_hold, shares_of
from postroad.store.suppression import Entry, SuppressionReason, save_suppressions
from postroad.store.traffic import Grain, Traffic
from postroad.store.types import UtcDateTime
from tests.console.delivery_rows import fill_domains, fill_receivers, fill_warmup
from tests.console.webhook_rows import EVENT, fill_webhooks
from tests.store.rows import add_audience, add_campaign, add_recipient, add_touch, insert_row

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}\x1b[2J\u202e"
"""What a stranger may write into a field, a subject or a reply."""

EXAMPLES = {
    "session_id": "1",
    "name": "ada@example.com",
    "import_id": "4",
    "campaign": "spring",
    "touch": "1",
    "undecided": "2",
    "digest": f"{1:064x}",
    "key": "shop",
    "run_id": "00000000-0000-4000-8000-000000000000",
    "endpoint": "shop",
}
"""A value of each path parameter, of rows that `fill` makes."""

QUERIES = {
    "/people/person": "?address=person2-1%40example.org",
    "/people/audiences/{name}/consents": "?source=https%3A%2F%2Fexample.org%2Fnewsletter",
    "/people/suppressions/lift": "?address=bounced%40example.com",
    "/people/suppressions/add": "?address=ada%40example.org",
    "/returned/mails": "?verdict=hard&days=7",
    "/campaigns/{campaign}/variants/messages": "?step=step-1&variant=plain",
    "/messages/{undecided}/decide": "?decision=drop",
    "/undecided/decide": "?state=unknown&decision=delivered&cause=connection+lost",
    "/undecided/messages": "?state=unknown&cause=connection+lost",
    "/receivers/messages": "?sender=delivery&provider=google&outcome=deferred",
    "/warmup/curve": "?identity=news%40example.com&provider=google",
    "/warmup/override": "?identity=news%40example.com&provider=google",
    "/domains/sender": "?address=offers%40acme.dev",
    "/domains/dmarc/rows": "?header_from=acme.dev&source_ip=192.0.2.7",
    "/domains/tls/rows": "?domain=acme.dev&policy=sts&mail_host=mx1.acme.dev&result=certificate-expired",
    "/receivers/undo": "?gate=provider%3Agoogle%3Anews%40example.com",
    "/webhooks/{endpoint}/redeliver": f"?event={EVENT}",
    "/webhooks/{endpoint}/replay": "?since=2026-05-01T08%3A30",
}
"""Query of each page that needs one."""

PATHS = {
    "/campaigns/{campaign}/widen": "/campaigns/rolled/widen?share=2",
    "/launch/{campaign}/approve": "/launch/asked/approve",
    "/campaigns/{campaign}/moved": "/campaigns/winter/moved?step=step-1&from_sender=own&sender=second&why=caps",
}
"""Path of each page that needs another row than the examples."""

NOT_PAGES = {
    "/sign-in/oidc",
    "/sign-in/oidc/callback",
    "/now/live",
    "/campaigns/{campaign}/live",
    "/launch/{campaign}/message",
    "/launch/{campaign}/run/{run_id}/live",
}
"""Redirects, parts of pages that a script fetches, and the document of a frame."""

PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True, kw_only=True)
class RegisteredRoute:
    """A route of a screen, and its path with the examples."""

    screen: str
    route: ScreenRoute

    @property
    def path(self) -> str:
        if self.route.path in PATHS:
            return PATHS[self.route.path]
        query = QUERIES.get(self.route.path, "") if self.route.method == "GET" else ""
        return PARAMETER.sub(lambda found: EXAMPLES[found[1]], self.route.path) + query

    def __str__(self) -> str:
        return f"{self.route.method} {self.route.path}"


def routes() -> Iterator[RegisteredRoute]:
    """Yield every route of every screen."""
    for screen in SCREENS:
        for route in screen.routes:
            yield RegisteredRoute(screen=screen.name, route=route)


def closed_routes() -> list[RegisteredRoute]:
    """Return the routes that need a role."""
    return [route for route in routes() if route.route.role is not PUBLIC]


def shown_pages() -> list[RegisteredRoute]:
    """Return the pages that a browser opens."""
    return [route for route in routes() if route.route.method == "GET" and route.route.path not in NOT_PAGES]


def fill(engine: sa.Engine) -> None:
    """Make rows for the pages, some of them with hostile texts."""
    now = SystemClock().now()
    with write(engine) as connection:
        fill_people(connection)
        fill_traffic(connection)
        fill_campaigns(connection, now)
        fill_returned(connection, now)
        fill_receivers(connection, now, HOSTILE)
        fill_warmup(connection, now, HOSTILE)
        fill_domains(connection, now, HOSTILE)
        fill_webhooks(connection, now, HOSTILE)
        fill_rollout(connection, now)
        fill_request(connection, now)
        for name in ("shop", "warehouse"):
            create_key(connection, name, AccessRole.SEND, expires_at=None, now=now)
        save_user(connection, "ada@example.com", AccessRole.OPERATE, "$argon2id$none", now)
        save_user(connection, HOSTILE[:100], AccessRole.VIEW, "$argon2id$none", now)
        for user in ("ada@example.com", HOSTILE):
            sign_in = SignIn(
                user=user,
                role=AccessRole.SEND,
                method="password",
                origin="192.0.2.7",
                expires_at=now + timedelta(hours=3),
            )
            begin_session(connection, sign_in, now)
        for number in range(60):
            actor = Actor(name="ada@example.com" if number % 7 else HOSTILE, origin="192.0.2.7")
            target = "spring" if number % 5 else HOSTILE
            at = now - timedelta(minutes=7 * number)
            record_act(connection, actor, "campaign.pause", target, 1_200 * number, at=at, note=HOSTILE[:60])


def fill_people(connection: sa.Connection) -> None:
    """Make audiences with imports, refusals and members, and suppressions of each reason."""
    now = SystemClock().now()
    for number, name in enumerate((HOSTILE[:90], "ada@example.com"), start=1):
        recipients = [
            add_recipient(connection, f"person{number}-{each}@example.org", first_name=HOSTILE) for each in range(60)
        ]
        audience = add_audience(connection, recipients, name=name)
        imported = AudienceImport(
            audience_id=audience,
            path=f"/srv/lists/{HOSTILE}.csv",
            rows_total=70,
            rows_done=70,
            imported=60,
            duplicates=7,
            refused=3,
            started_at=now - timedelta(days=1),
            finished_at=now - timedelta(days=1, seconds=-40) if number == 2 else None,
        )
        import_id = insert_row(connection, imported)
        for line in range(3):
            insert_row(
                connection,
                Refusal(import_id=import_id, line=line + 2, field="address", value=HOSTILE, reason="not an address"),
            )
        connection.execute(
            sa.text(
                "UPDATE audience_member SET joined_import_id = :import_id, joined_line = recipient_id, "
                "joined_at = :now WHERE audience_id = :audience"
            ).bindparams(sa.bindparam("now", type_=UtcDateTime())),
            {"import_id": import_id, "audience": audience, "now": now},
        )
        fill_consents(connection, audience, f"person{number}", now)
    entries = [
        Entry(f"{reason.value}{number}@example.com", reason, f"550 5.1.1 {HOSTILE}", now - timedelta(hours=number))
        for reason in SuppressionReason
        for number in range(60 if reason is SuppressionReason.UNSUBSCRIBE else 3)
    ]
    save_suppressions(
        connection,
        [
            *entries,
            Entry("bounced@example.com", SuppressionReason.HARD_BOUNCE, "550 no", now),
            Entry("person2-1@example.org", SuppressionReason.COMPLAINT, HOSTILE, now),
        ],
    )


def fill_consents(connection: sa.Connection, audience: int, name: str, now: datetime) -> None:
    """Make consents of people from two sources, one of them hostile."""
    new = [
        NewConsent(
            f"{name}-{each}@example.org",
            "example.org",
            audience,
            now - timedelta(hours=each),
            HOSTILE if each % 4 == 0 else "https://example.org/newsletter",
            ip="2001:db8::7",
            wording=f"Yes, the newsletter. {HOSTILE}",
            confirmation=HOSTILE if each % 2 else None,
        )
        for each in range(60)
    ]
    record_consents(connection, new, HOSTILE, now)


def fill_traffic(connection: sa.Connection) -> None:
    """Make the outcomes of a day, with a peak at noon of it."""
    now = SystemClock().now().replace(second=0, microsecond=0)
    key = {"grain": Grain.TOTAL, "sender_id": 0, "provider": "", "campaign_id": 0, "slot": 0}
    rows = [
        {**key, "at": now - timedelta(minutes=minute), "outcome": outcome, "events": events}
        for minute in range(1, 1440, 2)
        for outcome, events in (
            ("accepted", 40 + round(900 * max(0.0, 1 - abs(minute - 700) / 500))),
            ("deferred", 5 + minute % 40),
            ("bounced", minute % 9),
        )
        if events
    ]
    connection.execute(sa.insert(Traffic), rows)


def fill_campaigns(connection: sa.Connection, now: datetime) -> None:
    """Make a draft with members, and a campaign with messages in every state."""
    members = [add_recipient(connection, name=HOSTILE[:60]) for _ in range(4)]
    audience = add_audience(connection, members)
    names = [{"name": HOSTILE[:40], "share": 60, "subject": HOSTILE[:60]}, {"name": "plain", "share": 40}]
    split = {"variants": names, "winner": {"by": "replied", "after_ms": 172_800_000, "at_most": 20}}
    add_campaign(connection, name="spring", state=CampaignState.DRAFT, audience_id=audience, steps=(split,))
    autumn, (step,) = add_campaign(connection, name="autumn", launched_at=now - timedelta(days=2), steps=(split,))
    for state in (TouchState.DEFERRED, TouchState.UNKNOWN, TouchState.UNKNOWN, TouchState.DEAD):
        add_touch(connection, autumn, step, state, due_at=now, settled_at=now if state.ended else None)
    connection.execute(sa.text("UPDATE touch SET cause = 'connection lost' WHERE state = 'unknown'"))
    connection.execute(sa.text("UPDATE touch SET cause = :cause WHERE state = 'dead'"), {"cause": HOSTILE[:60]})
    sent, steps = add_campaign(connection, name="winter", launched_at=now - timedelta(days=1), steps=({}, {}))
    for number, state in enumerate(TouchState):
        for step in steps:
            for _ in range(3 + 5 * number):
                add_touch(connection, sent, step, state, recipient_id=add_recipient(connection), due_at=now)
    connection.execute(sa.text("UPDATE touch SET reply = :reply WHERE id % 7 = 0"), {"reply": HOSTILE})
    fill_moved(connection, sent, now)


def fill_moved(connection: sa.Connection, campaign: int, now: datetime) -> None:
    """Make messages of a campaign that went to another sender."""
    connection.execute(
        sa.text("UPDATE sender SET name = 'own' WHERE id = (SELECT sender_id FROM campaign WHERE id = :id)"),
        {"id": campaign},
    )
    connection.execute(sa.text("UPDATE sender SET name = 'second' WHERE id = (SELECT min(id) FROM sender)"))
    for why in ("caps", HOSTILE):
        connection.execute(
            sa.text(
                "INSERT INTO overflow (touch_id, step_id, from_sender_id, sender_id, at, why) "
                "SELECT touch.id, touch.step_id, campaign.sender_id, (SELECT min(id) FROM sender), :now, :why "
                "FROM touch JOIN campaign ON campaign.id = touch.campaign_id WHERE campaign.id = :id"
            ).bindparams(sa.bindparam("now", type_=UtcDateTime())),
            {"id": campaign, "now": now, "why": why},
        )


def fill_returned(connection: sa.Connection, now: datetime) -> None:
    """Make returned mails of each verdict, some of them about a message."""
    for number, verdict in enumerate((*BounceClass, BounceClass.HARD), start=1):
        at = now - timedelta(hours=number)
        raw = f"From: MAILER-DAEMON@example.org\r\nSubject: {HOSTILE}\r\n\r\n550 5.1.1 {HOSTILE}\r\n".encode()
        mail = BounceMail(
            digest=f"{number:064x}", received_at=at, source="smtp", mail_from=HOSTILE, recipient=HOSTILE, raw=raw
        )
        save_mail(connection, mail)
        mail.processed_at, mail.kind, mail.verdict, mail.rule = at, "dsn", verdict.value, HOSTILE[:90]
        mail.touch_id, mail.matched_by = (1, "return-path") if number % 2 else (None, None)
        finish_mail(connection, mail)
        if number % 2:
            add_effects(connection, mail.digest, [(BounceEffectKind.ADDRESS_SUPPRESSED, 1, HOSTILE)], at)


def fill_rollout(connection: sa.Connection, now: datetime) -> None:
    """Make a campaign whose first share is let go, and whose second one is held."""
    rolled, (step,) = add_campaign(connection, name="rolled", launched_at=now - timedelta(hours=1))
    update = sa.update(Campaign).where(col(Campaign.id) == rolled)
    connection.execute(update.values(rollout={"shares": [2_500, 10_000], "after_ms": None}))
    for state, number in ((TouchState.ACCEPTED, 1), (TouchState.WITHHELD, 3)):
        for _ in range(number):
            add_touch(connection, rolled, step, state, recipient_id=add_recipient(connection), due_at=now)
    connection.execute(
        sa.text("UPDATE touch SET share = CASE state WHEN 'withheld' THEN 2 ELSE 1 END WHERE campaign_id = :id"),
        {"id": rolled},
    )
    first = RolloutShare(campaign_id=rolled, number=1, basis_points=2_500, people=1)
    first.opened_at, first.opened_by = now - timedelta(hours=1), "the launch"
    add_shares(connection, [first, RolloutShare(campaign_id=rolled, number=2, basis_points=10_000, people=3)])
    record_hold(connection, shares_of(connection, rolled)[1], ShareHold("undecided", f"too few: {HOSTILE}"), now)


def fill_request(connection: sa.Connection, now: datetime) -> None:
    """Make a draft whose launch waits for an approval."""
    asked, _ = add_campaign(connection, name="asked", state=CampaignState.DRAFT)
    request = Approval(
        campaign_id=asked,
        state=ApprovalState.OPEN,
        digest="0" * 64,
        people=353,
        summary=HOSTILE,
        requested_at=now,
        requested_by=HOSTILE[:90],
        expires_at=now + timedelta(days=7),
    )
    add_approval(connection, request)
