"""People: audiences, refusals and suppressions, and how a suppression is lifted."""

from __future__ import annotations

import asyncio
import logging
import re

import httpx
import pytest
import sqlalchemy as sa

from postroad.settings import AccessRole
from postroad.store.engine import read, write
from postroad.store.suppression import Entry, SuppressionReason, save_suppressions
from tests.console.kit import Console
from tests.console.pages import fill
from tests.store.rows import add_audience, add_recipient


def suppressed(engine: sa.Engine, address: str) -> int:
    with read(engine) as connection:
        statement = sa.text("SELECT count(*) FROM suppression WHERE address = :address")
        return int(connection.execute(statement, {"address": address}).scalar_one())


async def test_numbers_lead_to_their_rows(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    page = (await http.get("/people")).text
    assert re.search(r'href="/people/audiences/ada%40example.com/imports/4"[^>]*>3</a>', page)
    refused = (await http.get("/people/audiences/ada%40example.com/imports/4")).text
    assert refused.count("not an address") == 3
    assert re.search(r'href="/people/suppressions\?reason=unsubscribe"[^>]*>60</a>', page)
    first = await http.get("/people/suppressions?reason=unsubscribe")
    assert first.text.count("@example.com</th>") == 50
    following = re.search(r'href="([^"]+)" rel="next"', first.text)
    assert following is not None
    second = await http.get(following[1].replace("&amp;", "&"))
    assert second.text.count("@example.com</th>") == 10
    assert 'rel="next"' not in second.text


async def test_audiences_are_listed_by_pages_with_their_numbers(console: Console) -> None:
    names = [f"list-{number:03}" for number in range(120)]
    with write(console.engine) as connection:
        for number, name in enumerate(names):
            add_audience(connection, [add_recipient(connection) for _ in range(number % 3)], name=name)
    http = await console.client(AccessRole.VIEW)
    path, found = "/people", []
    while path:
        page = (await http.get(path)).text
        found += re.findall(r'<th scope="row"><a href="/people/audiences/(list-\d+)">', page)
        members = re.findall(r'aria-label="(\d) members of (list-\d+)"', page)
        assert all(int(number) == int(name[-3:]) % 3 for number, name in members)
        following = re.search(r'href="([^"]+)" rel="next"', page)
        path = following[1].replace("&amp;", "&") if following else ""
    assert found == names


async def test_members_of_an_audience_page_by_key(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    path, members = "/people/audiences/ada%40example.com", set()
    while path:
        page = (await http.get(path)).text
        members |= set(re.findall(r"person2-\d+@example.org", page))
        found = re.search(r'href="([^"]+)" rel="next"', page)
        path = found[1].replace("&amp;", "&") if found else ""
    assert len(members) == 60


async def test_a_person_leads_to_consents_imports_and_suppressions(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    members = (await http.get("/people/audiences/ada%40example.com")).text
    assert "/people/person?address=person2-1%40example.org" in members
    page = (await http.get("/people/person?address=Person2-1@Example.org")).text
    assert "https://example.org/newsletter" in page
    assert "No mail is sent" in page
    assert re.search(r'href="/people/audiences/ada%40example.com/imports/4/members">import 4</a>', page)
    unknown = await http.get("/people/person?address=eve%40example.org")
    assert (unknown.status_code, "No recipient has this address" in unknown.text) == (404, True)
    assert (await http.get("/people/person?address=nonsense")).status_code == 404


async def test_numbers_of_consents_and_imports_lead_to_as_many_rows(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    audience = "/people/audiences/ada%40example.com"
    page = (await http.get(audience)).text
    for path, number in (
        (f"{audience}/imports/4/members", 60),
        (f"{audience}/consents?source=https%3A%2F%2Fexample.org%2Fnewsletter", 45),
    ):
        assert re.search(rf'href="{re.escape(path)}"[^>]*>{number}</a>', page), path
        assert await rows_from(http, path) == number
    assert await rows_from(http, f"{audience}/consents") == 60


async def rows_from(http: httpx.AsyncClient, path: str) -> int:
    """Return the number of people whom all pages of a list name."""
    found = 0
    while path:
        page = (await http.get(path)).text
        found += len(set(re.findall(r"person2-\d+@example.org</a></th>", page)))
        following = re.search(r'href="([^"]+)" rel="next"', page)
        path = following[1].replace("&amp;", "&") if following else ""
    return found


async def test_a_suppression_is_lifted_with_its_reason_and_a_record(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.OPERATE)
    asked = await http.get("/people/suppressions/lift?address=Bounced@Example.com")
    assert "Send to Bounced@Example.com again?" in asked.text
    assert suppressed(console.engine, "bounced@example.com") == 1, "asking changes nothing"
    refused = await http.post("/people/suppressions/lift", data={"address": "bounced@example.com", "why": " "})
    assert refused.status_code == 422
    assert "Fill in this field." in refused.text
    done = await http.post("/people/suppressions/lift", data={"address": "bounced@example.com", "why": "asked by mail"})
    assert (done.status_code, done.headers["location"]) == (303, "/people/suppressions")
    assert suppressed(console.engine, "bounced@example.com") == 0
    record = console.audit()[0]
    assert (record.actor, record.action, record.target) == (
        "operate@example.com",
        "suppression.lift",
        "bounced@example.com",
    )
    assert (record.count, record.note) == (1, "asked by mail")
    shown = await http.get("/people/suppressions")
    assert "bounced@example.com is not suppressed any more." in shown.text
    assert "not suppressed any more" not in (await http.get("/people/suppressions")).text, "a notice is shown once"
    again = await http.post("/people/suppressions/lift", data={"address": "bounced@example.com", "why": "x"})
    assert again.status_code == 409


async def test_a_suppression_that_is_stored_as_a_hash_is_lifted_by_its_address(console: Console) -> None:
    hashed = console.parts.context.hash_of("ada@example.com")
    with write(console.engine) as connection:
        save_suppressions(connection, [Entry(hashed, SuppressionReason.COMPLAINT, "list", console.parts.now())])
    http = await console.client(AccessRole.OPERATE)
    done = await http.post("/people/suppressions/lift", data={"address": "ada@example.com", "why": "x"})
    assert done.status_code == 303
    assert suppressed(console.engine, hashed) == 0


async def test_an_address_that_is_not_valid_or_not_suppressed_is_an_error(console: Console) -> None:
    http = await console.client(AccessRole.OPERATE)
    assert (await http.get("/people/suppressions/lift?address=nonsense")).status_code == 422
    assert (await http.get("/people/suppressions/lift?address=ada@example.com")).status_code == 409
    assert (await http.get("/people/audiences/none")).status_code == 409
    assert (await http.get("/people/suppressions?after=%00x")).status_code == 422
    assert (await http.get("/people/audiences/none/imports/99999999999999999999")).status_code == 422


async def test_a_user_who_may_only_view_gets_no_link_to_lift(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    assert "/people/suppressions/lift" not in (await http.get("/people/suppressions")).text


async def test_a_text_that_no_database_stores_is_answered(console: Console, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "postroad")
    http = await console.client(AccessRole.OWN)
    for path in (
        "/people/audiences/%00",
        "/people/audiences/ada%40example.com/consents?source=%00",
        "/people/person?address=%00",
        "/campaigns/a%00b",
        "/campaigns/a%00%1b[2J",
        "/campaigns/a/messages?step=%00",
        "/undecided/messages?state=dead&cause=%00",
        "/returned/mails/%00",
        "/audit?actor=%00",
        "/why?q=%00",
    ):
        assert (await http.get(path)).status_code < 500, path
    lines = [record.getMessage() for record in caplog.records if record.name == "postroad.console.app"]
    assert bool(lines) == (console.engine.dialect.name == "postgresql")
    assert all(line.isprintable() for line in lines), "each is one line of the log"
