"""Inbound mails, written for these tests."""

from __future__ import annotations

BOUNDARY = "=_part"


def mail(body: str, **headers: str) -> bytes:
    """One mail with CRLF line ends; underscores in the names of fields are hyphens."""
    fields = {"From": "MAILER-DAEMON@mx.example.org", "To": "bounces@news.example.com", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in fields.items() if value)
    return f"{head}\n{body}".replace("\n", "\r\n").encode()


def multipart(*parts: tuple[str, str], report_type: str = "delivery-status", **headers: str) -> bytes:
    """A multipart/report of parts: content type and content of each."""
    body = "".join(f"--{BOUNDARY}\nContent-Type: {kind}\n\n{content}\n" for kind, content in parts)
    kind = f'multipart/report; report-type={report_type};\n boundary="{BOUNDARY}"'
    return mail(f"{body}--{BOUNDARY}--\n", **{"MIME-Version": "1.0", "Content-Type": kind, **headers})


def dsn(
    *,
    to: str = "bounces@news.example.com",
    recipient: str = "ada@example.org",
    action: str = "failed",
    status: str = "5.1.1",
    diagnostic: str = "550 5.1.1 <ada@example.org>: Recipient address rejected: User unknown",
    returned: str = "",
) -> bytes:
    """A DSN as Postfix writes it."""
    words = (
        f"I'm sorry to have to inform you that your message could not be delivered.\n\n<{recipient}>: {diagnostic}\n"
    )
    fields = (
        "Reporting-MTA: dns; mx.example.org\nArrival-Date: Mon, 4 May 2026 08:30:00 +0000\n\n"
        f"Final-Recipient: rfc822; {recipient}\nAction: {action}\nStatus: {status}\n"
        f"Diagnostic-Code: smtp; {diagnostic}\n"
    )
    parts = [("text/plain", words), ("message/delivery-status", fields)]
    if returned:
        parts.append(("text/rfc822-headers", returned))
    return multipart(*parts, To=to, Subject="Undelivered Mail Returned to Sender", Return_Path="<>")


def feedback(*, kind: str = "abuse", returned: str = "", to: str = "abuse@news.example.com", more: str = "") -> bytes:
    """A feedback report that hides the recipient."""
    fields = f"Feedback-Type: {kind}\nUser-Agent: Loop/1.0\nVersion: 1\n{more}"
    parts = [("text/plain", "This is a report."), ("message/feedback-report", fields)]
    return multipart(
        *parts, ("message/rfc822", returned or "Subject: News\n\nNews."), report_type="feedback-report", To=to
    )


BLOCKED = dsn(
    status="5.7.1",
    diagnostic="554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org",
)
FULL = dsn(status="5.2.2", diagnostic="552 5.2.2 <ada@example.org>: mailbox is over quota")
UNKNOWN = dsn()
DELAYED = dsn(action="delayed", status="4.4.1", diagnostic="connect to mx.example.org: Connection timed out")
DELIVERED = dsn(action="delivered", status="2.0.0", diagnostic="250 2.0.0 Ok: queued")

VACATION = mail(
    "I am out of the office until Monday. For urgent matters write to bob@example.org.\n",
    From="Ada <ada@example.org>",
    Subject="Automatic reply: News",
    Auto_Submitted="auto-replied",
)
LEFT_THE_COMPANY = mail(
    "Ada no longer works here. This mailbox does not exist any more, user unknown; please write to bob@example.org.\n",
    From="Ada <ada@example.org>",
    Subject="Out of office",
    Auto_Submitted="auto-replied",
)
HUMAN = mail(
    "Hello,\nyesterday I wrote to bob@example.org and got '550 5.1.1 user unknown'. It could not be delivered.\n"
    "Do you have his new address?\nAda\n",
    From="Ada <ada@example.org>",
    Subject="Bob?",
)
CHALLENGE = mail(
    "To have your message delivered, click the link below and confirm that you are a person.\n",
    From="Ada <ada@example.org>",
    Subject="Please confirm your message to ada@example.org",
)
RECEIPT = multipart(
    ("text/plain", "Your message was displayed."),
    (
        "message/disposition-notification",
        "Final-Recipient: rfc822; ada@example.org\nDisposition: manual-action/MDN-sent-manually; displayed\n",
    ),
    report_type="disposition-notification",
    From="ada@example.org",
    Subject="Read: News",
)
NEWSLETTER = mail(
    "This week: why mailbox full and user unknown are not the same.\n",
    From="Letters <letters@example.net>",
    Subject="All about bounces",
    List_Id="<letters.example.net>",
)
NO_BOUNCES = {
    "vacation": VACATION,
    "left the company": LEFT_THE_COMPANY,
    "human": HUMAN,
    "challenge": CHALLENGE,
    "receipt": RECEIPT,
    "newsletter": NEWSLETTER,
    "delivered": DELIVERED,
    "delayed": DELAYED,
}
QMAIL = mail(
    "Hi. This is the qmail-send program at mx.example.org.\n"
    "I'm afraid I wasn't able to deliver your message to the following addresses.\n\n"
    "<ada@example.org>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n"
    "--- Below this line is a copy of the message.\n\n"
    "Return-Path: <news@example.com>\nMessage-ID: <one@example.com>\nFrom: news@example.com\nTo: ada@example.org\n",
    Subject="failure notice",
    Return_Path="<>",
)
