"""Events of mail services in the shapes that their pages describe, with a touch's tag where each brings it back."""

from __future__ import annotations

from typing import Any

ADA = "ada@example.org"
WHOM = [{"emailAddress": ADA}]
NO_SUCH_USER = {"type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 <ada@example.org>: User unknown"}
OPT_OUT = {
    "Recipient": ADA,
    "Origin": "Recipient",
    "SuppressSending": True,
    "SuppressionReason": "ManualSuppression",
}


def ses(kind: str, token: str, *, headers: list[dict[str, str]] | None = None, **fields: Any) -> dict[str, Any]:
    mail = {
        "timestamp": "2026-05-04T08:30:00.000Z",
        "messageId": "0102017f-ses-gives-its-own",
        "source": "news@example.com",
        "destination": [ADA],
        "headers": headers or [],
        "tags": {"ses:configuration-set": ["news"], **({"postroad": [token]} if token else {})},
    }
    return {"eventType": kind, "mail": mail, **fields}


def ses_bounce(
    token: str,
    *,
    kind: str = "Permanent",
    said: str = "smtp; 550 5.1.1 <ada@example.org>: User unknown",
    headers: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    status = said.partition(" 5.")[2][:3]
    one = {"emailAddress": ADA, "action": "failed", "status": f"5.{status}", "diagnosticCode": said}
    bounce = {"bounceType": kind, "bounceSubType": "General", "bouncedRecipients": [one], "feedbackId": "1"}
    return ses("Bounce", token, headers=headers, bounce=bounce)


def sendgrid(kind: str, token: str, **fields: Any) -> dict[str, Any]:
    event = {
        "email": ADA,
        "timestamp": 1_777_883_400,
        "event": kind,
        "sg_event_id": f"event-of-{kind}",
        "sg_message_id": "sendgrid.its-own",
    }
    return {**event, **({"postroad": token} if token else {}), **fields}


def postmark(kind: str, token: str, **fields: Any) -> dict[str, Any]:
    return {"RecordType": kind, "MessageID": "postmark-gives-its-own", "Metadata": {"postroad": token}, **fields}


def postmark_bounce(
    token: str, kind: str = "HardBounce", details: str = "smtp;550 5.1.1 <ada@example.org>: User unknown"
) -> dict[str, Any]:
    said = {"Type": kind, "TypeCode": 1, "Email": ADA, "Details": details, "Description": "The server was unable to."}
    return postmark("Bounce", token, ID=42, **said)


def mailgun(kind: str, token: str, **fields: Any) -> dict[str, Any]:
    event = {
        "event": kind,
        "id": f"event-of-{kind}",
        "timestamp": 1_777_883_400.5,
        "recipient": ADA,
        "message": {"headers": {"message-id": "somebody@example.com", "to": ADA}},
        "user-variables": {"postroad": token} if token else {},
    }
    return {"event-data": {**event, **fields}}


def mailgun_failed(
    token: str, *, severity: str = "permanent", reason: str = "bounce", message: dict[str, Any] | None = None
) -> dict[str, Any]:
    status = {"code": 550, "message": "5.1.1 <ada@example.org>: User unknown", "enhanced-code": "5.1.1"}
    more: dict[str, Any] = {"message": message} if message is not None else {}
    return mailgun("failed", token, severity=severity, reason=reason, **{"delivery-status": status}, **more)
