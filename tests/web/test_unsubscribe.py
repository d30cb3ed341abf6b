"""One-click unsubscribe (RFC 8058) as receivers, people, scanners and strangers use it."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
import sqlalchemy as sa

from postroad.delivery.job import job_id
from postroad.errors import UnavailableError
from postroad.mail.token import PROOFS, Purpose
from postroad.queue import JobState, Queue
from postroad.settings import RateSetting, UnsubscribeScope, WebSettings
from postroad.store.engine import read
from postroad.web.body import MAX_BODY_BYTES
from tests.delivery.queue_of_touches import queued_touches, state_of
from tests.web.conftest import ONE_CLICK, SIGNER, Web, open_web, path_of


async def no_queue() -> Queue:
    raise UnavailableError("the queue is away")


def address_of(engine: sa.Engine, touch: int) -> str:
    statement = "SELECT address FROM recipient JOIN touch ON touch.recipient_id = recipient.id WHERE touch.id = :id"
    with read(engine) as connection:
        return str(connection.execute(sa.text(statement), {"id": touch}).scalar_one())


async def test_a_one_click_post_acts_at_once_in_ledger_and_queue(web: Web) -> None:
    touch, other = await queued_touches(web.engine, web.queue, 2)
    answer = await web.http.post(path_of(touch), data=ONE_CLICK)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert web.suppressed() == {address_of(web.engine, touch): (0, "unsubscribe", "one-click (RFC 8058)")}
    assert [state_of(web.engine, one) for one in (touch, other)] == ["suppressed", "queued"]
    assert await web.queue.states([job_id(touch), job_id(other)]) == [JobState.REMEMBERED, JobState.QUEUED]


@pytest.mark.parametrize("boundary", ["x", "----WebKitFormBoundary7MA4YWxkTrZu0gW"])
async def test_a_multipart_post_counts_the_same(web: Web, boundary: str) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    part = 'Content-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click'
    body = f"--{boundary}\r\n{part}\r\n--{boundary}--\r\n"
    headers = {"Content-Type": f'multipart/form-data; boundary="{boundary}"'}
    assert (await web.http.post(path_of(touch), content=body.encode(), headers=headers)).status_code == 200
    assert state_of(web.engine, touch) == "suppressed"


FORM = "application/x-www-form-urlencoded"
MULTIPART = 'multipart/form-data; charset=UTF-8; boundary="b"'
PART = b'Content-Disposition: form-data; name="List-Unsubscribe"'
SPACED = {
    "line break after it": (FORM, b"List-Unsubscribe=One-Click\r\n"),
    "line feed after it": (FORM, b"List-Unsubscribe=One-Click\n"),
    "white space around it": (FORM, b" \r\n\tList-Unsubscribe = One-Click \t\r\n"),
    "white space encoded": (FORM, b"List-Unsubscribe=One-Click%0D%0A"),
    "plus after it": (FORM, b"List-Unsubscribe=+One-Click+"),
    "another field after it": (FORM, b"List-Unsubscribe=One-Click\r\n&x=\xc3\xa9"),
    "byte order mark": (FORM, b"\xef\xbb\xbfList-Unsubscribe=One-Click"),
    "charset": (f"{FORM}; charset=UTF-8", b"List-Unsubscribe=One-Click\r\n"),
    "charset without white space": (f'{FORM.upper()};charset="utf-8"', b"List-Unsubscribe=One-Click"),
    "multipart": (MULTIPART, b"--b\r\n" + PART + b"\r\n\r\nOne-Click\r\n--b--\r\n"),
    "multipart with line breaks": (MULTIPART, b"\r\n--b \r\n" + PART + b"\r\n\r\n\r\nOne-Click\r\n\r\n--b--\r\n"),
    "multipart with line feeds": (MULTIPART, b"--b\n" + PART + b"\n\nOne-Click\n--b--\n"),
    "multipart with a type": (
        "Multipart/Form-Data;boundary=b; charset=utf-8",
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n" + PART + b"\r\n\r\nOne-Click\r\n--b--",
    ),
    "multipart with white space in its fields": (
        "multipart/form-data ; boundary = b",
        b'--b\r\ncontent-disposition : form-data ; name = "List-Unsubscribe "\r\n\r\n One-Click \r\n--b--',
    ),
}


@pytest.mark.parametrize(("content_type", "body"), SPACED.values(), ids=SPACED)
async def test_white_space_and_parameters_do_not_matter(web: Web, content_type: str, body: bytes) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    answer = await web.http.post(path_of(touch), content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 200
    assert state_of(web.engine, touch) == "suppressed"


async def test_a_second_post_changes_nothing_and_is_confirmed_too(web: Web) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    answers = [await web.http.post(path_of(touch), data=ONE_CLICK) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    with read(web.engine) as connection:
        noted = connection.execute(sa.text("SELECT cause, reply FROM delivery_event")).all()
    assert [tuple(row) for row in noted] == [("unsubscribe", "one-click (RFC 8058)")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_following_the_link_changes_nothing(web: Web, method: str) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    answer = await web.http.request(method, path_of(touch))
    assert answer.status_code == (204 if method == "OPTIONS" else 200)
    assert web.suppressed() == {}
    assert state_of(web.engine, touch) == "queued"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_not_allowed(web: Web, method: str) -> None:
    assert (await web.http.request(method, path_of(1))).status_code == 405


async def test_a_post_without_the_words_of_the_standard_asks(web: Web) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    odd: list[dict[str, object]] = [
        {},
        {"data": {"List-Unsubscribe": "Maybe"}},
        {"json": ONE_CLICK},
        {"content": b"\xff\xfe=1", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"content": b"List-Unsubscribe=One-Click"},
        {"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}},
    ]
    for request in odd:
        answer = await web.http.post(path_of(touch), **request)  # type: ignore[arg-type]
        assert answer.status_code == 400
        assert "<button" in answer.text
    assert web.suppressed() == {}


async def test_what_is_no_token_of_ours_and_what_is_gone_get_the_same_answer(web: Web) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    tampered = path_of(touch)[:-1] + ("a" if path_of(touch)[-1] != "a" else "b")
    bounce = f"/u/{SIGNER.sign(Purpose.BOUNCE, touch)}"
    gone = path_of(987_654_321)
    answers = [await web.http.post(path, data=ONE_CLICK) for path in (tampered, bounce, gone, "/u/x", "/u/%00%ff")]
    assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[0].text)}
    assert "does not work" in answers[0].text
    assert web.suppressed() == {}
    assert state_of(web.engine, touch) == "queued"


async def test_no_page_names_the_recipient(web: Web) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    pages = [await web.http.get(path_of(touch)), await web.http.post(path_of(touch), data=ONE_CLICK)]
    assert all("@" not in page.text.partition("</style>")[2] for page in pages)


async def test_a_body_that_is_too_long_is_not_read(web: Web) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    body = b"List-Unsubscribe=One-Click&x=" + b"x" * MAX_BODY_BYTES
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await web.http.post(path_of(touch), content=body, headers=headers)).status_code == 413
    assert web.suppressed() == {}


async def test_a_database_that_is_away_is_no_success(away: sa.Engine) -> None:
    async with open_web(away, no_queue) as http:
        assert (await http.get(path_of(1))).status_code == 200
        answer = await http.post(path_of(1), data=ONE_CLICK, headers={"Accept-Language": "de"})
        health = await http.get("/healthz")
    assert answer.status_code == health.status_code == 503
    assert answer.headers["retry-after"] == "60"
    assert "noch nicht abgemeldet" in answer.text


async def test_a_queue_that_is_away_takes_nothing_from_it(engine: sa.Engine, queue: Queue) -> None:
    (touch,) = await queued_touches(engine, queue, 1)
    async with open_web(engine, no_queue) as http:
        assert (await http.post(path_of(touch), data=ONE_CLICK)).status_code == 200
    assert state_of(engine, touch) == "suppressed"


async def test_a_queue_that_hangs_takes_nothing_from_it(
    engine: sa.Engine, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> Queue:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("postroad.operations.unsubscribe.QUEUE_TIMEOUT_S", 0.05)
    (touch,) = await queued_touches(engine, queue, 1)
    async with open_web(engine, never) as http:
        assert (await http.post(path_of(touch), data=ONE_CLICK)).status_code == 200
    assert state_of(engine, touch) == "suppressed"


async def test_the_scope_may_be_the_audience(engine: sa.Engine, queue: Queue) -> None:
    (touch,) = await queued_touches(engine, queue, 1)
    async with open_web(engine, no_queue, WebSettings(unsubscribe=UnsubscribeScope.AUDIENCE)) as http:
        assert (await http.post(path_of(touch), data=ONE_CLICK)).status_code == 200
    with read(engine) as connection:
        audience = connection.execute(sa.text("SELECT audience_id FROM campaign")).scalar_one()
        assert connection.execute(sa.text("SELECT audience_id FROM suppression")).scalar_one() == audience != 0


async def test_too_many_requests_of_one_client_wait_and_others_do_not(engine: sa.Engine) -> None:
    settings = WebSettings(rate=RateSetting(count=40, per_ms=3_600_000), trusted_proxies=("127.0.0.1",))
    async with open_web(engine, no_queue, settings) as http:

        async def ask(client: str, path: str) -> httpx.Response:
            return await http.get(path, headers={"X-Forwarded-For": client})

        assert [(await ask("192.0.2.1", "/u/guess")).status_code for _ in range(3)] == [404, 404, 429]
        waits = await ask("192.0.2.1", path_of(1))
        assert waits.status_code == 429
        assert 0 < int(waits.headers["retry-after"]) <= 3600
        assert (await ask("192.0.2.2", path_of(1))).status_code == 200
        assert (await http.get("/healthz")).status_code == 200


async def test_every_answer_has_the_headers_of_safety(web: Web) -> None:
    for path in (path_of(1), "/u/x", "/healthz", "/nothing", "/openapi.json", "/docs"):
        headers = (await web.http.get(path)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


async def test_health_says_that_it_is_us(web: Web) -> None:
    assert (await web.http.get("/healthz")).json() == {"service": "postroad", "database": "ok"}


async def test_the_log_has_no_token_and_no_address(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    with caplog.at_level(logging.DEBUG):
        await web.http.post(path_of(touch), data=ONE_CLICK)
        await web.http.get("/somewhere/else")
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert any(line.startswith("POST /u/… 200 in ") for line in ours)
    token = path_of(touch).rpartition("-")[2]
    assert not any(token in line or "somewhere" in line or "@" in line for line in ours)


async def test_a_token_survives_servers_that_change_case(web: Web) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    token = path_of(touch).removeprefix("/u/")
    assert (await web.http.post(f"/u/{token.upper()}", data=ONE_CLICK)).status_code == 200
    assert state_of(web.engine, touch) == "suppressed"


@pytest.mark.parametrize("number", [PROOFS.start, PROOFS[-1]])
async def test_the_link_of_a_proof_says_so_and_unsubscribes_no_recipient(web: Web, number: int) -> None:
    (touch,) = await queued_touches(web.engine, web.queue, 1)
    for answer in (await web.http.get(path_of(number)), await web.http.post(path_of(number), data=ONE_CLICK)):
        assert answer.status_code == 200
        assert "This email was a proof" in answer.text
        assert "<form" not in answer.text
    assert (web.suppressed(), state_of(web.engine, touch)) == ({}, "queued")
