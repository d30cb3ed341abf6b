"""postroad dns: is a domain fit to send from, what do senders' domains lack, and what do receivers report."""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from postroad.app.context import AppContext
from postroad.cli.canary import canary
from postroad.cli.context import with_context
from postroad.cli.options import parse_duration_option_ms
from postroad.cli.output import JsonOption, Styled, print_json, print_line, print_table, print_text
from postroad.cli.row_limit import MAX_NUMBER
from postroad.clock import SystemClock
from postroad.delivery.job import MAIL_QUEUES
from postroad.dns.finding import Finding, RecordVerdict
from postroad.dns.health import HealthReport, check_identity
from postroad.dns.identity import Identity
from postroad.dns.resolver import Resolver
from postroad.dns.show import markdown, to_fix
from postroad.errors import DataError, UnavailableError, UsageError, unknown_name
from postroad.field_faults import field_faults
from postroad.mail.address import ascii_domain
from postroad.senders.dns_health import (
    close_stale_holds,
    findings_of,
    identity_of,
    record,
    senders_to_check,
)
from postroad.senders.mail_reports import FileOutcome, import_reports
from postroad.senders.volume import with_volume
from postroad.settings import DnsHealthSettings, DnsSettings, Settings
from postroad.store.dns_report import DnsReport, SenderHold, last_report, open_holds
from postroad.store.engine import read
from postroad.store.mail_report import dmarc_sources, tls_results

app = typer.Typer(help="DNS: what receivers see of a domain, and what they report.", no_args_is_help=True)

app.command("canary")(canary)

_COLOURS = {
    RecordVerdict.PASS: "green",
    RecordVerdict.INFO: "blue",
    RecordVerdict.UNKNOWN: "magenta",
    RecordVerdict.WARN: "yellow",
    RecordVerdict.FAIL: "red",
}


@app.command("check")
def check(
    domain: Annotated[str, typer.Argument(help="Domain of the From address.")],
    sender_ip: Annotated[
        list[str] | None, typer.Option("--sender-ip", help="Address that mail leaves from; as often as there are.")
    ] = None,
    dkim_selector: Annotated[
        list[str] | None, typer.Option("--dkim-selector", help="Selector that mail is signed with.")
    ] = None,
    helo: Annotated[str | None, typer.Option(help="Name in EHLO.")] = None,
    bounce_domain: Annotated[
        str | None, typer.Option(help="Domain of the return path; unset: that of the From address.")
    ] = None,
    resolver: Annotated[
        list[str] | None,
        typer.Option("--resolver", help="Resolver to ask, as 192.0.2.1:53; unset: as the settings say."),
    ] = None,
    blocklists: Annotated[bool, typer.Option(help="Ask lists of spammers.")] = True,
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Check a domain: SPF, DKIM, DMARC, MX, PTR, DNS blocklists, MTA-STS, TLS-RPT, DANE and BIMI.

    It needs no settings. Exits 1 when something fails, 6 when nothing fails and DNS left a question open, else 0.
    """
    settings = _dns_settings(resolver)
    health = DnsHealthSettings() if resolver else Settings.load().dns_health
    identity = _identity(domain, sender_ip, dkim_selector, helo, bounce_domain)
    if blocklists:
        identity = _with_blocklists(identity, health)
    report = asyncio.run(_check(settings, identity))
    if as_json:
        print_json(
            {"domain": report.domain, "verdict": report.verdict, "checked_at": report.checked_at}
            | {"findings": report.findings}
        )
    elif as_markdown:
        print_text(markdown(report.domain, report.verdict, report.findings).rstrip())
    else:
        _print(report.domain, report.verdict, report.findings)
    if report.verdict is RecordVerdict.FAIL:
        raise typer.Exit(1)
    if report.unanswered:
        raise typer.Exit(UnavailableError.exit_code)


def _dns_settings(resolvers: list[str] | None) -> DnsSettings:
    if not resolvers:
        return Settings.load().dns
    try:
        return DnsSettings(nameservers=tuple(resolvers))
    except ValidationError as error:
        fault = field_faults(error, DnsSettings, kind="setting", top="[dns]")[0]
        raise UsageError(f"--resolver: {fault.message}") from None


def _identity(
    domain: str, ips: list[str] | None, selectors: list[str] | None, helo: str | None, bounce_domain: str | None
) -> Identity:
    try:
        identity = Identity(
            domain=_read_name(domain),
            bounce_domain=_read_name(bounce_domain) if bounce_domain else "",
            sender_ips=tuple(str(ip_address(ip)) for ip in ips or ()),
            selectors=tuple(selectors or ()),
            helo=_read_name(helo) if helo else None,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    if "." not in identity.domain:
        raise UsageError(f"{domain!r} is a single word, and no domain that mail is sent from")
    return identity


def _read_name(text: str) -> str:
    try:
        name = ascii_domain(text.strip().rstrip(".").lower())
    except DataError as error:
        raise UsageError(error.message) from None
    if not all(0 < len(label) < 64 for label in name.split(".")) or len(name) > 253:
        raise UsageError(f"{text!r} is no domain: its labels have 1 to 63 characters, and all of it at most 253")
    return name


def _with_blocklists(identity: Identity, health: DnsHealthSettings) -> Identity:
    return Identity(
        **{
            **vars(identity),
            "address_blocklists": health.address_blocklists,
            "domain_blocklists": health.domain_blocklists,
        }
    )


async def _check(settings: DnsSettings, identity: Identity) -> HealthReport:
    clock = SystemClock()
    async with Resolver(settings, clock) as resolver:
        return await check_identity(resolver, identity, clock, ssl.create_default_context())


def _print(domain: str, verdict: RecordVerdict, findings: tuple[Finding, ...]) -> None:
    print_table(
        [f"{domain}: ", Styled(verdict, _COLOURS[verdict])],
        ["", "standard", "about", "seen"],
        ([Styled(f.verdict, _COLOURS[f.verdict]), f.standard, f.subject, f.seen] for f in findings),
    )
    for f in to_fix(findings):
        print_line()
        print_line(Styled(f.verdict, _COLOURS[f.verdict]), f" {f.standard}, {f.subject}: {f.why}")
        if f.remedy:
            print_line(f"  {f.remedy}")
        if f.publish:
            print_line(Styled(f"  {f.publish}", "bold"))


@app.command("senders")
def senders(
    now: Annotated[
        bool, typer.Option("--check", help="Check them now, as the flow dns-health does, and hold back or let go.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what was found last of each sender's DNS, and which senders it holds back."""

    async def work(context: AppContext) -> list[tuple[str, DnsReport | None, SenderHold | None]]:
        if now:
            await _check_senders(context)
        return await asyncio.to_thread(_last, context)

    rows = with_context(work)
    if as_json:
        print_json([_as_json(*row) for row in rows])
        return
    print_table(
        "DNS of the senders",
        ["sender", "verdict", "checked", "failing since", "held back since", "why"],
        (
            [
                sender,
                report.verdict if report else None,
                report.checked_at if report else None,
                hold.failing_since if hold else None,
                hold.held_at if hold else None,
                hold.reason if hold else "",
            ]
            for sender, report, hold in rows
        ),
    )


async def _check_senders(context: AppContext) -> None:
    settings, trust = context.settings, ssl.create_default_context()
    names, resolver = senders_to_check(settings), await context.resolver()
    reports = [
        await check_identity(resolver, identity_of(settings, name, os.environ), context.clock, trust) for name in names
    ]
    reports = await with_volume(resolver, context.engine, reports, context.clock.now())
    for name, report in zip(names, reports, strict=True):
        await asyncio.to_thread(record, context.engine, settings.sender(name).address, report, settings.dns_health)
    await asyncio.to_thread(close_stale_holds, context.engine, settings, context.clock.now())
    for name in MAIL_QUEUES:
        await context.gates(await context.queue(name), releasing=True).apply()


def _last(context: AppContext) -> list[tuple[str, DnsReport | None, SenderHold | None]]:
    with read(context.engine) as connection:
        holds = open_holds(connection)
        addresses = [sender.address for sender in context.settings.senders.values()]
        return [(address, last_report(connection, address), holds.get(address)) for address in addresses]


def _as_json(sender: str, report: DnsReport | None, hold: SenderHold | None) -> dict[str, object]:
    return {
        "sender": sender,
        "verdict": report.verdict if report else None,
        "checked_at": report.checked_at if report else None,
        "failing_since": hold.failing_since if hold else None,
        "held_at": hold.held_at if hold else None,
        "why": hold.reason if hold else None,
        "findings": findings_of(report) if report else [],
    }


@app.command("read-reports")
def read_reports(
    files: Annotated[
        list[Path],
        typer.Argument(help="DMARC or TLS reports, bare, .gz or .zip, or mails with them."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Keep reports that receivers sent. One that is known changes nothing.

    What of a file cannot be read is named, and the rest is kept.
    """

    async def work(context: AppContext) -> list[FileOutcome]:
        return [await asyncio.to_thread(import_reports, context.engine, path, context.clock.now()) for path in files]

    results = with_context(work)
    if as_json:
        print_json(results)
    else:
        for result in results:
            print_line(f"{result.file}: {result.outcome}")
            for problem in result.problems:
                print_line(f"  not read: {problem}")
    bad = [result.file for result in results if result.refused]
    if bad:
        raise DataError(f"{len(bad)} of {len(files)} files are no report", where=", ".join(bad[:5]))


@app.command("reports")
def reports(
    domain: Annotated[str | None, typer.Option(help="Only of this domain.")] = None,
    since: Annotated[str, typer.Option(help="How far back, as 30d.")] = "30d",
    limit: Annotated[int, typer.Option(min=1, max=MAX_NUMBER, help="Rows of each table.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show who sends in our domains' names and whether DMARC passes, and how TLS to our mail hosts goes."""
    back = timedelta(milliseconds=parse_duration_option_ms(since))

    async def work(context: AppContext) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        return await asyncio.to_thread(_summary, context, back, domain, limit)

    sources, results = with_context(work)
    if domain is not None and not (sources or results):
        ours = {sender.domain for sender in Settings.load().senders.values()}
        if domain not in ours:
            raise unknown_name("domain with a report or a sender", domain, ours)
    if as_json:
        print_json({"dmarc": sources, "tls": results})
        return
    for title, rows in (("DMARC: who sends in our names", sources), ("TLS to our mail hosts", results)):
        if rows:
            print_table(f"{title}, last {since}", list(rows[0]), (list(row.values()) for row in rows))
        else:
            print_line(f"{title}: no report of the last {since}. `postroad dns read-reports FILE` reads some.")


def _summary(
    context: AppContext, back: timedelta, domain: str | None, limit: int
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    with read(context.engine) as connection:
        when = context.clock.now() - back
        sources = dmarc_sources(connection, since=when, domain=domain, limit=limit)
        results = tls_results(connection, since=when, domain=domain, limit=limit)
    return [dict(row._mapping) for row in sources], [dict(row._mapping) for row in results]
