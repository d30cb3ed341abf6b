"""Returned mail: each number leads to its mails, a mail is shown as text, and its address is suppressed or lifted."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

import pytest
import sqlalchemy as sa

from postroad.bounce.classify import BounceClass
from postroad.console.screens.returned import VERDICTS
from postroad.settings import AccessRole
from postroad.store.bounce import BounceEffectKind, BounceMail, add_effects, finish_mail, save_mail
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from tests.console.kit import Console
from tests.console.pages import HOSTILE
from tests.console.test_campaigns import links
from tests.console.test_people import suppressed
from tests.console.test_undecided import decide
from tests.store.rows import add_campaign, add_recipient, add_touch

ADA = "ada@example.com"
RULE = "no such mailbox <b>"


@pytest.fixture
def touch(console: Console) -> int:
    """A bounced message to Ada, and one that waits, with 60 mails about the first, and 3 that are about none."""
    now = console.parts.now()
    with write(console.engine) as connection:
        campaign, (step, later) = add_campaign(connection, name="spring", steps=({}, {}))
        recipient = add_recipient(connection, ADA)
        about = add_touch(connection, campaign, step, TouchState.BOUNCED, recipient_id=recipient)
        add_touch(connection, campaign, later, TouchState.PLANNED, recipient_id=recipient)
        for number in range(63):
            raw = f"Subject: {HOSTILE}\r\n\r\n550 5.1.1 {HOSTILE}".encode() + b"\xff\r\n" + b"x" * 70_000
            mail = BounceMail(
                digest=f"{number:064x}", received_at=now - timedelta(minutes=number), source="smtp", raw=raw
            )
            save_mail(connection, mail)
            mail.processed_at, mail.kind, mail.verdict, mail.rule = now, "dsn", "hard", RULE
            mail.touch_id, mail.matched_by = about, "return-path"
            if number >= 60:
                mail.verdict, mail.rule, mail.touch_id, mail.matched_by = "unrelated", None, None, None
            finish_mail(connection, mail)
        add_effects(connection, f"{0:064x}", [(BounceEffectKind.TOUCH_BOUNCED, about, f"was {HOSTILE}")], now)
    return about


async def listed(console: Console, role: AccessRole, href: str) -> int:
    http, total = await console.client(role), 0
    while href:
        page = await http.get(href)
        assert page.status_code == 200, page.text
        total += len(re.findall(r'<th scope="row"><a href="/returned/mails/', page.text))
        following = re.search(r'href="([^"]+)" rel="next"', page.text)
        href = unescape(following[1]) if following else ""
    return total


async def test_every_number_leads_to_so_many_mails(console: Console, touch: int) -> None:
    http = await console.client(AccessRole.VIEW)
    page = await http.get("/returned?days=1")
    numbers = links(page, "/returned/mails?")
    assert sorted(numbers.values()) == [3, 3, 60, 60], "by verdict, and by verdict and rule"
    for href, number in numbers.items():
        assert await listed(console, AccessRole.VIEW, href) == number, href
    with write(console.engine) as connection:
        connection.execute(sa.text("UPDATE bounce_mail SET received_at = '2020-01-01 00:00:00'"))
    assert "No mail was returned in this period." in (await http.get("/returned")).text
    assert await listed(console, AccessRole.VIEW, "/returned/mails?verdict=hard") == 0


async def test_a_mail_is_shown_as_text_with_the_rule_that_decided(console: Console, touch: int) -> None:
    http = await console.client(AccessRole.VIEW)
    page = (await http.get(f"/returned/mails/{0:064x}")).text
    assert "Decided by the rule <strong>no such mailbox &lt;b&gt;</strong>" in page
    assert "found by return path" in page
    assert "The message counts as bounced" in page
    assert f'href="/why?q={touch}"' in page
    source = re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert source is not None
    assert "550 5.1.1 &lt;script&gt;alert(1)&lt;/script&gt;" in source[1]
    assert "\\x1b[2J\\u202e" in source[1]
    assert "\ufffd\nx" in source[1], "each line of the mail is a line"
    assert len(unescape(source[1])) < 66_000, "only the begin of a large mail is shown"
    assert "Only its first 64 KiB are shown." in page
    assert "/people/suppressions/" not in page, "a user who may only view is offered no act"
    without = (await http.get(f"/returned/mails/{62:064x}")).text
    assert "Its message was not found" in without
    with write(console.engine) as connection:
        connection.execute(sa.text("UPDATE bounce_mail SET raw = NULL"))
    assert "Its text was deleted after its retention." in (await http.get(f"/returned/mails/{0:064x}")).text


async def test_the_address_of_a_mail_is_suppressed_and_lifted_with_a_reason(console: Console, touch: int) -> None:
    http, path = await console.client(AccessRole.OPERATE, user="carl"), f"/returned/mails/{0:064x}"

    async def act_of(page: str) -> str:
        return unescape(re.findall(r'href="(/people/suppressions/[^"]+)"', page)[0])

    act = await act_of((await http.get(path)).text)
    asked = (await http.get(act)).text
    assert f"Send no more to {ADA}?" in asked
    assert re.search(r"<dd><a[^>]*>1</a></dd>", asked), "the message that waits is counted"
    refused = await http.post("/people/suppressions/add", data={"address": ADA, "why": " "})
    assert (refused.status_code, suppressed(console.engine, ADA)) == (422, 0)
    values = {"address": ADA, "why": "asked by phone", "back": path}
    done = await http.post("/people/suppressions/add", data=values)
    assert (done.status_code, done.headers["location"], suppressed(console.engine, ADA)) == (303, path, 1)
    record = console.audit()[0]
    assert (record.actor, record.action, record.target) == ("carl", "suppression.add", ADA)
    assert (record.count, record.note) == (1, "asked by phone")
    page = (await http.get(path)).text
    assert "manual, carl in the console: asked by phone" in page
    await http.post("/people/suppressions/add", data=values)
    assert console.audit()[0].count == 0
    assert "was suppressed already" in (await http.get(path)).text

    lifted = await http.post("/people/suppressions/lift", data={**values, "why": "wants it again"})
    assert (lifted.headers["location"], suppressed(console.engine, ADA)) == (path, 0)
    elsewhere = await http.post("/people/suppressions/add", data={**values, "back": "https://evil.example/"})
    assert elsewhere.headers["location"] == "/"
    assert (await http.post("/people/suppressions/add", data={**values, "address": "nonsense"})).status_code == 422


async def test_what_is_not_there_is_an_error(console: Console) -> None:
    http = await console.client(AccessRole.VIEW)
    assert (await http.get(f"/returned/mails/{9:064x}")).status_code == 409
    assert (await http.get("/returned/mails?verdict=odd")).status_code == 422
    assert (await http.get("/returned?days=0")).status_code == 422
    assert (await http.get("/returned/mails?after=x")).status_code == 422


async def test_a_domain_is_suppressed_without_a_number_of_messages(console: Console) -> None:
    http = await console.client(AccessRole.OPERATE)
    page = await http.get("/people/suppressions/add?address=@example.org")
    assert (page.status_code, "extents" in page.text) == (200, False)
    done = await decide(http, "/people/suppressions/add?address=@example.org")
    assert done.status_code == 422, "it needs a reason"


def test_every_verdict_has_a_meaning() -> None:
    assert set(VERDICTS) == set(BounceClass)
