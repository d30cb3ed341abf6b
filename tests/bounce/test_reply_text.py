"""A person's mail counts as a reply, even if it quotes our words. A program's mail does not."""

from __future__ import annotations

import pytest

from postroad.bounce.parse import parse_mail
from postroad.bounce.reply_text import is_auto_reply_subject, is_receipt_subject, is_reply_subject, strip_quoted_text
from postroad.bounce.report import MailKind
from tests.attacks.limits import cost_ratio
from tests.bounce import mails

PERSONS = [
    ("Re: Welcome to the road", "Yes, please call me tomorrow.\n"),
    ("Re: Your vacation plans for summer", "Yes, please call me tomorrow.\n"),
    (
        "Re: Our spring party",
        "Great, I will be there.\n\nOn Mon, 1 Jan 2024, News wrote:\n> Dear Eve,\n> you are on the guest list of our spring party.\n",  # noqa: E501
    ),
    (
        "Re: Spring concert",
        "How much is it for two?\n\nOn Mon, 1 Jan 2024, News wrote:\n> Dear Eve,\n> buy your ticket now.\n",
    ),
    ("Re: Spring concert", "Hello, where do I get your ticket for Saturday?\n"),
    ("AW: Angebote für Familien im Urlaub", "Bitte rufen Sie mich an.\n"),
    (
        "Re: Delivery failed? How to get your mail through",
        "Our newsletters could not be delivered to Outlook last week. Please call me.\n",
    ),
    ("Re: How to write a good auto-reply", "Nice article, can we talk?\n"),
    (
        "Re: Invoice tool",
        "Sounds good!\n\n> This is an automated message of our shop.\n> Please do not reply to this.\n",
    ),
    ("Re: Please verify your interest in our course", "Yes, I am interested.\n"),
    ("Re: Welcome", "Yes, call me.\n"),
    ("Re: What to do on holiday", "Tell me more.\n"),
    ("Re: Welcome", "I am on holiday until Monday. Call me then!\n"),
    (
        "Re: Out of Office: how to write it",
        "Good one!\n\nAm 01.01.2024 um 10:00 schrieb News:\n> This is an automated message.\n",
    ),
    ("AW: Abwesenheitsnotizen richtig schreiben", "Danke!\n"),
    (
        "RE: Undeliverable: what to do",
        "Nice.\n\nFrom: News <news@example.com>\nSent: Monday\nTo: Eve\n\nThis message could not be delivered.\n",
    ),
    ("回复: 自动回复的写法", "谢谢\n"),
    ("Vacation rentals in June", "Do you still have something free for the second week of June?\n"),
    ("Im Urlaub auch geöffnet?", "Haben Sie im August offen?\n"),
    ("Semester i fjällen", "Har ni stuga ledig vecka 8?\n"),
    ("Absence of my invoice", "I have not received my invoice yet.\n"),
    ("Ticket #2 for the concert", "Please book me a second ticket.\n"),
    ("Thank you for your message", "Call me at five. Eve\n"),
    ("Automatic doors: quote", "Could you send us a quote for automatic doors?\n"),
    ("We have received your parcel", "but it was broken. What now?\n"),
    ("Abwesenheit am Freitag", "Am Freitag kann ich leider nicht kommen.\n"),
    ("My mail to you bounced: user unknown", "I got an error: 550 5.1.1 user unknown. Which address should I use?\n"),
    ("Undeliverable parcel 7", "The parcel you sent could not be delivered, the driver said.\n"),
    ("Challenge accepted!", "I'd like to take part in the spring challenge.\n"),
    ("Please verify my address", "Please verify that you have my new address: Road 5.\n"),
    ("Re: Welcome", "We have received your message and my boss says yes. When can you start?\n"),
    ("Re: Welcome", "Please do not reply to this address, use eve@home.example instead.\n"),
    ("Accepted: your offer?", "We accepted it last week, send the invoice.\n"),
    ("Declined: your quote", "Sorry, too dear for us.\n"),
    ("Read: the article", "I read it with joy. Is lime needed?\n"),
    ("Delivered: one crate", "One crate too few. When does the other one come?\n"),
    ("Zugesagt: Angebot", "Wir nehmen es.\n"),
    (
        "Fwd: Undelivered Mail Returned to Sender",
        (
            "Your colleague's address does not work, see below.\n\n---------- Forwarded message ---------\n"
            "From: Mail Delivery System <MAILER-DAEMON@mx.example.net>\n\n<tim@example.net>: 550 5.1.1 User unknown\n"
        ),
    ),
]
PROGRAMS = [
    ("Automatic reply: Our spring party", "I am away.\n"),
    ("Automatische Antwort: Angebote", "Ich bin nicht im Büro.\n"),
    ("Réponse automatique : Offres", "Je suis absent.\n"),
    ("Automatyczna odpowiedź: Oferta", "Jestem na urlopie.\n"),
    ("自动回复: 春季", "我不在\n"),
    ("[Auto-Reply] Spring", "Thank you.\n"),
    ("Out of Office: Re: Spring", "Back on Monday.\n"),
    ("Absence du bureau : Offre", "Je suis absent.\n"),
    ("Nieobecność: Oferta", "Nie ma mnie.\n"),
    ("부재중: 봄 세일", "부재중입니다.\n"),
    ("מענה אוטומטי: הצעה", "אני לא במשרד\n"),
    ("Vacation", "I am on vacation and will be back on 5 May.\n"),
    ("Ihre Anfrage ist eingegangen", "Vielen Dank für Ihre Anfrage. Wir melden uns schnellstmöglich.\n"),
    ("Eve Reader ist außer Haus", "Ich werde erst am Montag antworten.\n"),
    ("[Ticket#20240101] Spring", "Thank you for contacting us. Your ticket has been created.\n"),
]
NO_ANSWERS = [
    "Accepted: Spring party",
    "Zugesagt: Frühlingsfest",
    "Read: Spring",
    "Gelesen: Frühling",
    "Lu : Printemps",
]


def answer(subject: str, body: str, **headers: str) -> bytes:
    return mails.mail(body, **{"From": "Eve <eve@example.org>", "Subject": subject, "In_Reply_To": "<1@x>", **headers})


@pytest.mark.parametrize(("subject", "body"), PERSONS, ids=[subject for subject, _ in PERSONS])
def test_what_a_person_writes_is_personal(subject: str, body: str) -> None:
    report = parse_mail(answer(subject, body))
    assert (report.kind, report.personal) == (MailKind.OTHER, True)


@pytest.mark.parametrize(("subject", "body"), PROGRAMS, ids=[subject for subject, _ in PROGRAMS])
def test_what_a_program_writes_is_an_automatic_reply(subject: str, body: str) -> None:
    assert parse_mail(answer(subject, body)).kind is MailKind.AUTO_REPLY


@pytest.mark.parametrize(("subject", "body"), PERSONS[:3])
def test_the_headers_of_rfc_3834_come_first(subject: str, body: str) -> None:
    assert parse_mail(answer(subject, body, Auto_Submitted="auto-replied")).kind is MailKind.AUTO_REPLY


@pytest.mark.parametrize("header", ["X_MS_Exchange_Inbox_Rules_Loop", "X_Autorespond", "X_Auto_Reply_From"])
def test_headers_that_only_programs_write_count(header: str) -> None:
    assert parse_mail(answer("Re: Spring", "Eve is away.\n", **{header: "eve@example.org"})).kind is MailKind.AUTO_REPLY


@pytest.mark.parametrize(
    "body",
    [
        "This is an automated response. We will answer.\n",
        "##- Please type your reply above this line -##\nYour request is being reviewed.\n",
        "Thank you for contacting us. Your request has been received.\n",
    ],
)
def test_what_a_ticket_system_begins_with_is_no_answer(body: str) -> None:
    assert not parse_mail(answer("Re: Spring", body)).personal


@pytest.mark.parametrize("subject", NO_ANSWERS)
def test_an_accepted_invitation_and_a_receipt_are_no_answers(subject: str) -> None:
    assert is_receipt_subject(subject)
    assert not parse_mail(answer(subject, "Eve has accepted.\n")).personal


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("Read: Spring", "Your message\n\n  To: Eve\n  Subject: Spring\n\nwas read on Monday, 1 January 2024 10:00.\n"),
        ("Gelesen: Frühling", "Ihre Nachricht an Eve wurde am 01.01.2024 um 10:00 gelesen.\n"),
        ("Accepted: Spring party", ""),
        ("Delivered: Spring", "Delivery to the following recipient is complete: eve@example.org\n"),
    ],
)
def test_a_receipt_says_so_or_speaks_for_no_person(subject: str, body: str) -> None:
    assert not parse_mail(answer(subject, body)).personal


@pytest.mark.parametrize("sender", ["postmaster@example.org", "Dr. Postmaster <eve@example.org>"])
def test_a_postmaster_who_answers_is_a_person(sender: str) -> None:
    assert parse_mail(answer("Re: Spring", "I like it. Call me.\n", From=sender)).personal
    assert not parse_mail(answer("Spring", "I like it. Call me.\n", From=sender)).personal
    assert not parse_mail(answer("Re: Spring", "I like it.\n", From=sender, Return_Path="<>")).personal
    assert not parse_mail(answer("Re: Spring", "I like it.\n", From="MAILER-DAEMON@example.org")).personal


def test_a_calendar_is_no_answer() -> None:
    raw = answer("Re: Spring", "BEGIN:VCALENDAR\nMETHOD:REPLY\nEND:VCALENDAR\n", **{"Content-Type": "text/calendar"})
    assert not parse_mail(raw).personal


@pytest.mark.parametrize(
    "quote",
    [
        "On Mon, 1 Jan 2024 at 10:00, News <news@example.com> wrote:\n> spam\n",
        "On Mon, 1 Jan 2024 at 10:00, News\n<news@example.com> wrote:\n\n> spam\n",
        "Am Mo., 1. Jan. 2024 um 10:00 Uhr schrieb News <news@example.com>:\n> spam\n",
        "Le lun. 1 janv. 2024 à 10:00, News <news@example.com> a écrit :\n> spam\n",
        "El lun, 1 ene 2024 a las 10:00, News (<news@example.com>) escribió:\n> spam\n",
        "-----Original Message-----\nspam\n",
        "-----Ursprüngliche Nachricht-----\nspam\n",
        "________________________________\nVon: News\nGesendet: Montag\nAn: Eve\n\nspam\n",
        "From: News <news@example.com>\nSent: Monday\nTo: Eve\nSubject: Spring\n\nspam\n",
        "-- \nspam\n",
        "> spam\n",
    ],
)
def test_what_is_quoted_is_left_out(quote: str) -> None:
    assert strip_quoted_text(f"Sounds good!\n\n{quote}").strip() == "Sounds good!"


def test_an_answer_below_the_quotation_is_kept() -> None:
    assert "Sounds good!" in strip_quoted_text("> spam\n> ham\n\nSounds good!\n")


def test_prefixes() -> None:
    assert is_reply_subject("AW: WG: x")
    assert is_reply_subject("RE: x")
    assert not is_reply_subject("Regarding x")
    assert not is_auto_reply_subject("Re: Automatic reply: x")


@pytest.mark.parametrize(
    "piece", ["> a\n", "from: ", "From: x\n", "wrote ", "schrieb ", "____", "-- \n", "a:\n", "< ", "On "]
)
def test_finding_the_own_words_is_linear(piece: str) -> None:
    assert cost_ratio(strip_quoted_text, piece * (20_000 // len(piece)), piece * (80_000 // len(piece))) < 12
