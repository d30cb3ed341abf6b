"""Bounces and innocent mails, mutated: none raises, none suppresses who should not be, none finds another's touch.

::

    python -m tests.bounce.fuzz --count 100000 --seed 1
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from random import Random

from pydantic import SecretStr

from postroad.bounce.classify import BounceClass
from postroad.bounce.mail_worker import parse_stored
from postroad.bounce.process import classify_mail
from postroad.bounce.report import Envelope
from postroad.mail.token import Purpose, TokenSigner
from tests.bounce import mails

TOUCH = 4711
SIGNER = TokenSigner(SecretStr("a key for tests"))
TOKEN = SIGNER.sign(Purpose.BOUNCE, TOUCH)
TO = f"bounce+{TOKEN}@bounces.example.com"
SUPPRESSING = frozenset({BounceClass.HARD, BounceClass.COMPLAINT, BounceClass.UNSUBSCRIBE})


def _addressed(raw: bytes) -> bytes:
    return raw.replace(b"bounces@news.example.com", TO.encode())


INNOCENT = [_addressed(raw) for raw in (*mails.NO_BOUNCES.values(), mails.BLOCKED, mails.FULL)]
GUILTY = [
    _addressed(raw)
    for raw in (
        mails.UNKNOWN,
        mails.QMAIL,
        mails.feedback(to=TO),
        mails.dsn(
            returned=f"Message-ID: <{SIGNER.sign(Purpose.MESSAGE_ID, TOUCH)}@example.com>\nFrom: x@example.com\n"
        ),
    )
]


def _flip(raw: bytearray, rng: Random) -> None:
    for _ in range(rng.randint(1, 20)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)


def _cut(raw: bytearray, rng: Random) -> None:
    del raw[rng.randrange(len(raw)) :]


def _drop_lines(raw: bytearray, rng: Random) -> None:
    lines = raw.splitlines(keepends=True)
    raw[:] = b"".join(line for line in lines if rng.random() > 0.1)


def _repeat_lines(raw: bytearray, rng: Random) -> None:
    lines = raw.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    raw[:] = b"".join([*lines[:at], *lines[at : at + 3] * rng.randint(1, 30), *lines[at:]])


def _shuffle_lines(raw: bytearray, rng: Random) -> None:
    lines = raw.splitlines(keepends=True)
    at, size = rng.randrange(len(lines)), rng.randint(2, 8)
    some = lines[at : at + size]
    rng.shuffle(some)
    raw[:] = b"".join([*lines[:at], *some, *lines[at + size :]])


def _insert_noise(raw: bytearray, rng: Random) -> None:
    at = rng.randrange(len(raw))
    raw[at:at] = (
        rng.choice([b"\0", b"\r", b"\n\n", b"--=_part\n", b"=?utf-8?b?", b"<", b"@", b'"', b"\xff", b"(" * 50]) * 3
    )


def _other_line_ends(raw: bytearray, rng: Random) -> None:
    raw[:] = raw.replace(b"\r\n", rng.choice([b"\n", b"\r", b"\n\r", b"\r\r\n"]))


def _nest(raw: bytearray, rng: Random) -> None:
    kind = rng.choice(["mixed", "report", "alternative"])
    head = f'From: x@example.org\nTo: {TO}\nContent-Type: multipart/{kind}; boundary="outer"\n\n--outer\n'
    raw[:] = head.encode() + b"Content-Type: message/rfc822\n\n" * rng.randint(0, 1) + bytes(raw) + b"\n--outer--\n"


MUTATIONS: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip,
    _cut,
    _drop_lines,
    _repeat_lines,
    _shuffle_lines,
    _insert_noise,
    _other_line_ends,
    _nest,
)


def mutant(raw: bytes, rng: Random) -> bytes:
    """The mail after one to three mutations."""
    changed = bytearray(raw)
    for mutate in rng.sample(MUTATIONS, rng.randint(1, 3)):
        if changed:
            mutate(changed, rng)
    return bytes(changed)


def check(raw: bytes, *, innocent: bool) -> str | None:
    """What is wrong with how this mail is read; None: nothing."""
    try:
        _, judgements, tokens = classify_mail(parse_stored(raw, Envelope()), SIGNER)
    except Exception as error:
        return f"raised {error!r}"
    if tokens.match is not None and tokens.match.touch_id != TOUCH:
        return f"found the touch of somebody else: {tokens.match}"
    wrong = [one.rule for one in judgements if one.verdict in SUPPRESSING]
    return f"would suppress: {wrong}" if innocent and wrong else None


def run(count: int, seed: int) -> list[tuple[bytes, str]]:
    """Check so many mutants. Returns those that something is wrong with."""
    rng = Random(seed)
    failures: list[tuple[bytes, str]] = []
    for _ in range(count):
        innocent = rng.random() < 0.6
        raw = mutant(rng.choice(INNOCENT if innocent else GUILTY), rng)
        wrong = check(raw, innocent=innocent)
        if wrong is not None:
            failures.append((raw, wrong))
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    begin = time.monotonic()
    failures = run(given.count, given.seed)
    for raw, wrong in failures[:10]:
        print(f"{wrong}\n{raw[:2000]!r}\n", file=sys.stderr)  # noqa: T201
    print(f"{given.count} mutants, seed {given.seed}: {len(failures)} wrong, {time.monotonic() - begin:.0f} s")  # noqa: T201
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
