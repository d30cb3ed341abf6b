"""What each sort of mail is read as, and what it means."""

from __future__ import annotations

import pytest

from postroad.bounce.classify import BounceClass, classify_recipients
from postroad.bounce.parse import parse_mail
from postroad.bounce.report import Action, Envelope, MailKind
from tests.bounce import mails


@pytest.mark.parametrize(
    ("raw", "kind", "verdict"),
    [
        (mails.UNKNOWN, MailKind.DSN, BounceClass.HARD),
        (mails.FULL, MailKind.DSN, BounceClass.SOFT),
        (mails.BLOCKED, MailKind.DSN, BounceClass.BLOCK),
        (mails.DELAYED, MailKind.DSN, BounceClass.SOFT),
        (mails.DELIVERED, MailKind.DSN, BounceClass.UNRELATED),
        (mails.QMAIL, MailKind.BOUNCE, BounceClass.HARD),
        (mails.VACATION, MailKind.AUTO_REPLY, BounceClass.AUTO_REPLY),
        (mails.LEFT_THE_COMPANY, MailKind.AUTO_REPLY, BounceClass.AUTO_REPLY),
        (mails.CHALLENGE, MailKind.CHALLENGE, BounceClass.CHALLENGE),
        (mails.RECEIPT, MailKind.DISPOSITION, BounceClass.UNRELATED),
        (mails.HUMAN, MailKind.OTHER, BounceClass.UNRELATED),
        (mails.NEWSLETTER, MailKind.OTHER, BounceClass.UNRELATED),
        (mails.feedback(), MailKind.FEEDBACK, BounceClass.COMPLAINT),
        (mails.feedback(kind="not-spam"), MailKind.FEEDBACK, BounceClass.UNRELATED),
        (mails.feedback(kind="opt-out"), MailKind.FEEDBACK, BounceClass.UNSUBSCRIBE),
        (mails.feedback(kind="auth-failure"), MailKind.FEEDBACK, BounceClass.BLOCK),
    ],
)
def test_a_mail_is_read_and_judged(raw: bytes, kind: MailKind, verdict: BounceClass) -> None:
    report = parse_mail(raw)
    assert (report.kind, [one.verdict for one in classify_recipients(report)]) == (kind, [verdict])


def test_a_dsn_of_several_recipients_tells_of_each() -> None:
    blocks = (
        "Reporting-MTA: dns; mx.example.org\nOriginal-Envelope-Id: QQ+2B314159\n\n"
        "Original-Recipient: rfc822;team@example.org\nFinal-Recipient: rfc822;ada@example.org\n"
        "Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 no such user\n\n"
        "Final-Recipient: rfc822;bob@example.org\nAction: delayed\nStatus: 4.2.2\nWill-Retry-Until: Tue\n\n"
        "Final-Recipient: rfc822;eve@example.org\nAction: expanded\nStatus: 2.1.5\n\n"
        "Final-Recipient: rfc822;joe@example.org\nAction: relayed\nStatus: 2.0.0\n"
    )
    report = parse_mail(mails.multipart(("message/delivery-status", blocks)))
    statuses = [(one.address, one.original, one.action, one.status) for one in report.recipients]
    assert statuses == [
        ("ada@example.org", "team@example.org", Action.FAILED, "5.1.1"),
        ("bob@example.org", None, Action.DELAYED, "4.2.2"),
        ("eve@example.org", None, Action.EXPANDED, "2.1.5"),
        ("joe@example.org", None, Action.RELAYED, "2.0.0"),
    ]
    assert report.fields["original-envelope-id"] == "QQ+314159"  # xtext
    assert report.recipients[1].fields["will-retry-until"] == "Tue"
    verdicts = [(one.verdict, one.final) for one in classify_recipients(report)]
    assert verdicts == [
        (BounceClass.HARD, True),
        (BounceClass.SOFT, False),
        (BounceClass.UNRELATED, True),
        (BounceClass.UNRELATED, True),
    ]


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("rfc822; ada+2B1@example.org", "ada+2B1@example.org"),
        ("utf-8; jörg@example.org", "jörg@example.org"),
        (r"utf-8; j\x{F6}rg@example.org", "jörg@example.org"),
        ("utf-8; ada+2Bnews@example.org", "ada+news@example.org"),
        ("RFC822;<ada@example.org>", "ada@example.org"),
        ("ada@example.org (Ada)", "ada@example.org"),
        ("x400; /S=ada/", "/S=ada/"),
    ],
)
def test_addresses_of_a_dsn_are_decoded_by_their_type(value: str, address: str) -> None:
    block = f"Reporting-MTA: dns; x\n\nFinal-Recipient: {value}\nAction: failed\nStatus: 5.0.0\n"
    report = parse_mail(mails.multipart(("message/delivery-status", block)))
    assert [one.address for one in report.recipients] == [address]


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (
            "Unzustellbar: Neues",
            "Ihre Nachricht an ada@example.org wurde nicht zugestellt.\n550 5.1.1 Benutzer unbekannt",
        ),
        (
            "Échec de la remise",
            "Votre message n'a pas pu être remis à :\n\nada@example.org\n550 5.1.1 utilisateur inconnu",
        ),
        ("Correo devuelto", "No se pudo entregar el mensaje a:\n\n  ada@example.org\n\n550 5.1.1 usuario desconocido"),
        (
            "Письмо не доставлено",
            "Письмо не может быть доставлено:\n\n  ada@example.org\n\n550 5.1.1 Пользователь не найден",
        ),
        ("配信不能", "次の宛先へ送信できませんでした。\n\n  ada@example.org\n\n550 5.1.1 ユーザが見つかりません"),
    ],
)
def test_bounces_in_other_languages_are_read(subject: str, words: str) -> None:
    report = parse_mail(mails.mail(words + "\n", Subject=subject, **{"Content-Type": "text/plain; charset=utf-8"}))
    [judgement] = classify_recipients(report)
    assert (report.kind, judgement.reported.address, judgement.verdict) == (
        MailKind.BOUNCE,
        "ada@example.org",
        BounceClass.HARD,
    )


def test_user_unknown_said_of_the_message_and_not_of_the_recipient_is_no_hard_bounce() -> None:
    said = "550 User unknown (in reply to end of DATA command)"
    [judgement] = classify_recipients(parse_mail(mails.dsn(status="5.0.0", diagnostic=said)))
    assert judgement.verdict is BounceClass.SOFT
    [judgement] = classify_recipients(
        parse_mail(mails.dsn(status="5.0.0", diagnostic="550 User unknown (in reply to RCPT TO command)"))
    )
    assert judgement.verdict is BounceClass.HARD


def test_a_null_return_path_is_known_from_the_envelope_too() -> None:
    raw = mails.mail("ada@example.org\n  550 5.1.1 no\n", From="x@example.org", Subject="Undeliverable: News")
    assert parse_mail(raw).kind is MailKind.OTHER
    assert parse_mail(raw, Envelope(mail_from="")).kind is MailKind.BOUNCE


def test_a_dsn_within_a_forwarded_mail_counts() -> None:
    inner = mails.UNKNOWN.decode().replace("\r\n", "\n").replace(mails.BOUNDARY, "inner")
    raw = mails.mail(
        f"--outer\nContent-Type: message/rfc822\n\n{inner}\n--outer--\n",
        Subject="Scanned",
        **{"Content-Type": 'multipart/mixed; boundary="outer"'},
    )
    report = parse_mail(raw)
    assert [one.address for one in report.recipients] == ["ada@example.org"]


@pytest.mark.parametrize(
    "raw", [b"", b"\0" * 100, b"\r\n\r\n", b"From x\n", b":\n", b"\xff\xfe" * 50, b"Content-Type:"]
)
def test_what_is_hardly_a_mail_is_unrelated(raw: bytes) -> None:
    [judgement] = classify_recipients(parse_mail(raw))
    assert judgement.verdict is BounceClass.UNRELATED


BROKEN = {
    "no closing delimiter": lambda raw: raw.replace(b"--=_part--", b""),
    "wrong boundary": lambda raw: raw.replace(b'boundary="=_part"', b'boundary="other"'),
    "no boundary": lambda raw: raw.replace(b'boundary="=_part"', b""),
    "bare LF": lambda raw: raw.replace(b"\r\n", b"\n"),
    "bare CR": lambda raw: raw.replace(b"\r\n", b"\r"),
    "of a mailbox": lambda raw: b"From x Mon May  4 08:30:00 2026\r\n" + raw,
    "cut": lambda raw: raw[: raw.rindex(b"User unknown") + 12],
    "header ends without an empty line": lambda raw: raw.replace(b"\r\n\r\n--=_part", b"\r\n--=_part", 1),
    "unknown charset": lambda raw: raw.replace(b"text/plain", b"text/plain; charset=klingon"),
    "no type": lambda raw: raw.replace(b"message/delivery-status", b"text/plain"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_dsn_is_read_nevertheless(how: str) -> None:
    [judgement] = classify_recipients(parse_mail(BROKEN[how](mails.UNKNOWN)))
    assert (judgement.verdict, judgement.reported.address) == (BounceClass.HARD, "ada@example.org")


EXIM_FAILED = (
    "A message that you sent could not be delivered to one or more of its\n"
    "recipients. This is a permanent error. The following address(es) failed:\n\n  kim@shop.example\n"
    "    host mx.shop.example [192.0.2.5]\n"
)
QMAIL_FAILED = (
    "Hi. This is the qmail-send program at mx.shop.example.\nI'm afraid I wasn't able to deliver your message.\n"
    "This is a permanent error; I've given up.\n\n<kim@shop.example>:\n"
)
SERVER_WORDS = [
    (
        EXIM_FAILED
        + "    SMTP error from remote mail server after RCPT TO:<kim@shop.example>:\n    550 no such account\n",
        True,
    ),
    (
        EXIM_FAILED + "    SMTP error from remote mail server after end of data:\n    554 5.7.1 scored 12 as spam\n",
        False,
    ),
    (
        EXIM_FAILED
        + "    SMTP error from remote mail server after MAIL FROM:<b@x.example>:\n    550 5.1.1 not known\n",
        False,
    ),
    (QMAIL_FAILED + "192.0.2.5 does not like recipient.\nRemote host said: 550 no such person at this address\n", True),
    (QMAIL_FAILED + "Remote host said: 553 sorry, your domain does not exist (#5.1.8)\n", False),
    (QMAIL_FAILED + "This message is looping: it already has my Delivered-To line. (#5.4.6)\n", False),
    ("Ihre Nachricht konnte nicht zugestellt werden:\n\n<kim@shop.example>: Empfänger unbekannt\n", True),
    ("Ihre Nachricht konnte nicht zugestellt werden:\n\n<kim@shop.example>: Unbekannter Fehler\n", False),
    ("This mail could not be delivered:\n\nkim@shop.example: no such mailbox\n", True),
    ("This mail could not be delivered:\n\n * kim@shop.example: over quota\n", False),
    ("Zprávu nelze doručit:\n\n<kim@shop.example> 550 5.1.1 Uživatel nenalezen (in reply to RCPT TO command)\n", True),
]


@pytest.mark.parametrize(("words", "hard"), SERVER_WORDS)
def test_words_of_a_server_are_hard_only_about_the_recipient(words: str, hard: bool) -> None:
    raw = mails.mail(words, From="Mail Delivery System <MAILER-DAEMON@mx.example>", Subject="Mail delivery failed")
    report = parse_mail(raw)
    assert [one.address for one in report.recipients] == ["kim@shop.example"]
    assert [one.verdict is BounceClass.HARD for one in classify_recipients(report)] == [hard]


def test_a_server_that_quotes_a_refusal_bounces_in_any_language() -> None:
    words = "Zprávu se nepodařilo předat:\n\n<kim@shop.example>\n    odpověď: 550 5.1.1 Uživatel nenalezen\n"
    raw = mails.mail(words, From="MAILER-DAEMON@mx.example", Subject="Nedoručitelná zpráva")
    [judgement] = classify_recipients(parse_mail(raw))
    assert (judgement.verdict, judgement.reported.address) == (BounceClass.HARD, "kim@shop.example")
