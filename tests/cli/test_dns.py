"""postroad dns, as people and scripts run it, against a nameserver on loopback."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from postroad.embedded import stop_redis
from tests.commands import run_command
from tests.dns.domain import GOOD, zone_with
from tests.dns.nameserver import Nameserver, Trouble
from tests.dns.reports import RECORD, TLS, XML, mail

ZONE = zone_with({"_mta-sts.acme.dev": None})
OPTIONS = ("--sender-ip", "198.51.100.7", "--dkim-selector", "a", "--dkim-selector", "b", "--helo", "out.acme.dev")


async def postroad(folder: Path, *arguments: str) -> tuple[int, str, str]:
    # In a thread: the nameserver answers from this one.
    done = await asyncio.to_thread(run_command, folder, {**os.environ, "COLUMNS": "160"}, *arguments)
    return done.returncode, done.stdout, done.stderr


async def check(folder: Path, server: Nameserver, *arguments: str) -> tuple[int, str, str]:
    resolver = f"127.0.0.1:{server.port}"
    return await postroad(folder, "dns", "check", "acme.dev", "--resolver", resolver, *OPTIONS, *arguments)


async def test_a_domain_that_is_well_needs_no_settings_and_exits_0(tmp_path: Path) -> None:
    async with Nameserver(ZONE) as server:
        code, out, err = await check(tmp_path, server, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert {finding["verdict"] for finding in report["findings"]} == {"pass", "info"}
    assert {"dane.unsigned", "mta-sts.absent"} == {f["code"] for f in report["findings"] if f["verdict"] == "info"}
    assert list(tmp_path.iterdir()) == []


async def test_a_failure_exits_1_and_shows_the_record_to_publish(tmp_path: Path) -> None:
    zone = {**ZONE, "acme.dev": {**GOOD["acme.dev"], "TXT": ['"v=spf1 ip4:198.51.100.8 -all"']}}
    async with Nameserver(zone) as server:
        code, out, _ = await check(tmp_path, server)
        _, page, _ = await check(tmp_path, server, "--markdown")
    record = 'acme.dev. IN TXT "v=spf1 ip4:198.51.100.7 ip4:198.51.100.8 -all"'
    assert code == 1
    assert "mail from 198.51.100.7 gets fail" in out
    assert record in out
    assert page.startswith("# acme.dev: fail\n")
    assert record in page


async def test_what_dns_says_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    zone = {**ZONE, "_dmarc.acme.dev": {"TXT": ['"v=DMARC1; p=[red]x[/]"']}}
    async with Nameserver(zone) as server:
        code, out, _ = await check(tmp_path, server)
    assert code == 1
    assert "p=[red]x[/]" in out


async def test_a_question_that_dns_leaves_open_exits_6(tmp_path: Path) -> None:
    async with Nameserver(ZONE, troubles={"_dmarc.acme.dev": Trouble.SERVFAIL}) as server:
        code, out, _ = await check(tmp_path, server, "--json")
    assert code == 6
    assert json.loads(out)["verdict"] == "unknown"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["com"], "single word"),
        (["acme..dev"], "is no domain"),
        (["acme.dev", "--sender-ip", "me"], "'me'"),
        (["acme.dev", "--resolver", "nowhere"], "--resolver"),
    ],
)
async def test_what_cannot_be_asked_is_said(tmp_path: Path, arguments: list[str], says: str) -> None:
    code, _, err = await postroad(tmp_path, "dns", "check", *arguments)
    assert code == 2
    assert says in err


async def test_reports_are_kept_once_and_summarised_by_source(tmp_path: Path) -> None:
    (tmp_path / "d.xml.gz").write_bytes(gzip.compress(XML.encode()))
    (tmp_path / "t.json").write_text(json.dumps(TLS))
    (tmp_path / "bad.xml").write_text("<!DOCTYPE x><feedback/>")
    try:
        code, out, err = await postroad(tmp_path, "dns", "read-reports", "d.xml.gz", "bad.xml", "t.json")
        assert code == 4
        assert "bad.xml: refused: it has a DTD" in out
        assert "1 of 3 files are no report" in err
        code, out, _ = await postroad(tmp_path, "dns", "read-reports", "d.xml.gz", "t.json", "--json")
        assert [row["new"] for row in json.loads(out)] == [0, 0]
        _, out, _ = await postroad(tmp_path, "dns", "reports", "--since", "3000d", "--json")
    finally:
        stop_redis(tmp_path / ".postroad")
    found: dict[str, list[dict[str, Any]]] = json.loads(out)
    [source] = found["dmarc"]
    assert (source["source_ip"], source["mails"], source["passed"], source["by_spf"]) == ("198.51.100.7", 12, 12, 0)
    assert {(row["result"], row["sessions"]) for row in found["tls"]} == {
        ("success", 90),
        ("certificate-expired", 7),
        ("failure", 3),
    }


async def test_what_of_a_report_cannot_be_read_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    bad = XML.replace(RECORD, RECORD + RECORD.replace("198.51.100.7", "me"))
    parts = [("application/zip", "logo.zip", b"PK\x03\x04"), ("application/xml", "r.xml", bad.encode())]
    (tmp_path / "1.eml").write_bytes(mail(*parts))
    try:
        code, out, _ = await postroad(tmp_path, "dns", "read-reports", "1.eml", "--json")
        again, shown, _ = await postroad(tmp_path, "dns", "read-reports", "1.eml")
    finally:
        stop_redis(tmp_path / ".postroad")
    [outcome] = json.loads(out)
    assert (code, again, outcome["refused"], outcome["new"]) == (0, 0, False, 1)
    assert outcome["problems"] == [
        "logo.zip: its zip is broken: BadZipFile: File is not a zip file",
        "record 2: source_ip 'me' is not an address",
    ]
    assert "not read: record 2: source_ip 'me'" in shown


async def test_senders_are_checked_held_back_and_let_go(tmp_path: Path) -> None:
    zone = {**ZONE, "_dmarc.acme.dev": {}}
    async with Nameserver(zone, ttl_s=1) as server:
        (tmp_path / "postroad.toml").write_text(
            f'[dns]\nnameservers = ["127.0.0.1:{server.port}"]\n[dns_health]\ngrace_ms = "0s"\n'
            '[routes.r]\nhost = "127.0.0.1"\n[senders.news]\naddress = "news@acme.dev"\nroute = "r"\n'
            'postal_address = "1 Post Road, Milestone"\npublic_addresses = ["198.51.100.7"]\n'
        )
        try:
            code, out, err = await postroad(tmp_path, "dns", "senders", "--check", "--json")
            [held] = json.loads(out)
            server.zone["_dmarc.acme.dev"] = GOOD["_dmarc.acme.dev"]
            _, out, _ = await postroad(tmp_path, "dns", "senders", "--check", "--json")
            [released] = json.loads(out)
            _, table, _ = await postroad(tmp_path, "dns", "senders")
        finally:
            stop_redis(tmp_path / ".postroad")
    assert (code, err) == (0, "")
    assert held["held_at"]
    assert "DMARC" in held["why"]
    assert released["held_at"] is None
    assert "news@acme.dev" in table
