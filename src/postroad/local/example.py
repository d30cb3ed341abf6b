"""Recipients for the demo and for trials: as untidy as a real list, and always the same for the same number."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from random import Random

DOMAINS = tuple(
    f"{name}.example"
    for name in (
        "alpenpost", "aurora", "bluebird", "cartier-latin", "coastline", "correo", "dalmail", "fjord", "freight",
        "gardenia", "harbour", "hillside", "inkwell", "kiosk", "lantern", "mailbox", "meridian", "monsoon", "nordlys",
        "orchard", "paperboat", "pigeon", "quill", "ridgeway", "sakura", "tramway",
    )
)  # fmt: skip
ZONES = (
    "Europe/Berlin", "Europe/London", "America/New_York", "America/Los_Angeles", "Asia/Tokyo", "Asia/Kolkata",
    "Australia/Sydney", "America/Sao_Paulo",
)  # fmt: skip
FIRST_NAMES = (
    "Zoë", "Łukasz", "Søren", "María", "Chloé", "Jürgen", "Ólafur", "Željka", "Nguyễn", "李雷", "さくら", "Ольга",
    "Μαρία", "Amina", "Ben", "Clara", "Dev", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kwame", "Lena",
)  # fmt: skip
LAST_NAMES = (
    "Ångström",
    "Brown",
    "Çelik",
    "Dubois",
    "Eriksen",
    "Fernández",
    "García",
    "Hansen",
    "Itō",
    "Joshi",
    "Kaya",
)
COMPANIES = ("Acme, Inc.", "Blaue Post GmbH", 'The "Quill" Co.', "Møller & Sønner", "", "Crème & Co", "Tram 28")
MALFORMED = (
    "no-at-sign",
    "two@@signs.example",
    "dot..dot@quill.example",
    "@no-local-part.example",
    "spaces in@local.example",
    "a@b",
)

_EVERY_SUPPRESSED, _EVERY_BOUNCED, _EVERY_DEFERRED, _EVERY_LOST = 83, 97, 127, 499


@dataclass(frozen=True, kw_only=True)
class ExampleList:
    """What was written, and so what an import must find."""

    recipients: int
    duplicates: int
    malformed: int
    suppressed: int


def write_recipients(recipients: Path, suppressions: Path, count: int) -> ExampleList:
    """Write a CSV of recipients with extra duplicate and malformed rows, and a list of suppressed addresses.

    Some addresses have a tag that makes the sandbox refuse, defer, or close the connection after the final dot.

    Args:
        recipients: The CSV file to write.
        suppressions: The list of suppressed addresses to write.
        count: How many recipients.

    Returns:
        How many rows of each kind were written.
    """
    rng = Random(count)  # noqa: S311
    rows: list[list[str]] = []
    suppressed: list[str] = []
    for number in range(1, count + 1):
        first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
        tag = ""
        if number % _EVERY_LOST == 0:
            tag = "+drop-after-dot"
        elif number % _EVERY_BOUNCED == 0:
            tag = "+bounce"
        elif number % _EVERY_DEFERRED == 0:
            tag = "+defer"
        address = f"reader{number}{tag}@{DOMAINS[number % len(DOMAINS)]}"
        if number % _EVERY_SUPPRESSED == 0:
            suppressed.append(address)
        rows.append([address, first, last, rng.choice(ZONES), rng.choice(COMPANIES)])
    again = [[row[0].upper(), *row[1:]] for row in rng.sample(rows, max(1, count // 40))]
    wrong = [[MALFORMED[n % len(MALFORMED)], "Unknown", "", "", ""] for n in range(max(1, count // 60))]
    for row in (*again, *wrong):
        rows.insert(rng.randrange(1, len(rows) + 1), row)
    recipients.parent.mkdir(parents=True, exist_ok=True)
    with recipients.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["email", "first_name", "last_name", "time_zone", "company"])
        writer.writerows(rows)
    suppressions.write_text("".join(f"{line}\n" for line in ("address", *suppressed)), encoding="utf-8")
    return ExampleList(recipients=count, duplicates=len(again), malformed=len(wrong), suppressed=len(suppressed))
