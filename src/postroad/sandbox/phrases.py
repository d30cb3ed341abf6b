"""The replies of a session without faults. The wording follows Postfix unless noted."""

from __future__ import annotations

from enum import Enum

from postroad.sandbox.replies import SandboxReply


def _reply(code: int, enhanced: str, *lines: str) -> SandboxReply:
    return SandboxReply(code, enhanced, lines)


class OrdinaryReply(Enum):
    """An ordinary reply. ``value`` is the reply itself."""

    BYE = _reply(221, "2.0.0", "Bye")
    AUTHENTICATED = _reply(235, "2.7.0", "Authentication successful")
    OK = _reply(250, "2.0.0", "Ok")
    SENDER_OK = _reply(250, "2.1.0", "Ok")
    RECIPIENT_OK = _reply(250, "2.1.5", "Ok")
    READY_FOR_TLS = _reply(220, "2.0.0", "Ready to start TLS")
    GO_AHEAD = _reply(354, "", "End data with <CR><LF>.<CR><LF>")

    SHUTTING_DOWN = _reply(421, "4.3.2", "Service shutting down, closing transmission channel")
    TIMED_OUT = _reply(421, "4.4.2", "Error: timeout exceeded")
    TOO_MANY_ERRORS = _reply(421, "4.7.0", "Error: too many errors")
    TOO_MANY_RECIPIENTS = _reply(452, "4.5.3", "Error: too many recipients")
    NO_SPACE = _reply(452, "4.3.1", "Insufficient system storage")
    NO_TLS_NOW = _reply(454, "4.7.0", "TLS not available")

    LINE_TOO_LONG = _reply(500, "5.5.2", "Error: line too long")
    BARE_LF_IN_COMMAND = _reply(500, "5.5.2", "Error: bare <LF> received, a command ends with <CR><LF>")
    BARE_CR_IN_COMMAND = _reply(500, "5.5.2", "Error: bare <CR> received, a command ends with <CR><LF>")
    BAD_UTF8 = _reply(500, "5.5.2", "Error: bad UTF-8 syntax")
    UNKNOWN_COMMAND = _reply(500, "5.5.2", "Error: command not recognized")
    EHLO_SYNTAX = _reply(501, "5.5.4", "Syntax: EHLO hostname")
    MAIL_SYNTAX = _reply(501, "5.5.4", "Syntax: MAIL FROM:<address>")
    RCPT_SYNTAX = _reply(501, "5.5.4", "Syntax: RCPT TO:<address>")
    AUTH_SYNTAX = _reply(501, "5.5.4", "Syntax: AUTH mechanism")
    NO_PARAMETERS = _reply(501, "5.5.4", "Syntax: no parameters are allowed here")
    NOT_BASE64 = _reply(501, "5.5.2", "Error: invalid base64 data in continued response")
    AUTH_CANCELLED = _reply(501, "5.7.0", "Authentication aborted")
    SIZE_SYNTAX = _reply(501, "5.5.4", "Bad message size syntax")
    BODY_SYNTAX = _reply(501, "5.5.4", "Syntax: BODY=7BIT or BODY=8BITMIME")
    NO_VRFY = _reply(502, "5.5.1", "VRFY and EXPN are disabled")
    NOT_OFFERED = _reply(502, "5.5.1", "Error: command not implemented")
    HELLO_FIRST = _reply(503, "5.5.1", "Error: send HELO/EHLO first")
    NEED_MAIL = _reply(503, "5.5.1", "Error: need MAIL command")
    NEED_RCPT = _reply(503, "5.5.1", "Error: need RCPT command")
    NESTED_MAIL = _reply(503, "5.5.1", "Error: nested MAIL command")
    ALREADY_SECURE = _reply(503, "5.5.1", "Error: TLS already active")
    ALREADY_AUTHENTICATED = _reply(503, "5.5.1", "Error: already authenticated")
    AUTH_IN_TRANSACTION = _reply(503, "5.5.1", "Error: MAIL transaction in progress")
    UNKNOWN_MECHANISM = _reply(504, "5.5.4", "Error: unrecognized authentication mechanism")
    AUTH_REQUIRED = _reply(530, "5.7.0", "Authentication required")
    TLS_REQUIRED = _reply(530, "5.7.0", "Must issue a STARTTLS command first")
    BAD_CREDENTIALS = _reply(535, "5.7.8", "Error: authentication failed")

    # SMTP smuggling: Postfix smtpd_forbid_bare_newline = reject (its answer to CVE-2023-51764).
    BARE_LF = _reply(550, "5.5.2", "Error: bare <LF> received")
    BARE_CR = _reply(550, "5.5.2", "Error: bare <CR> received")
    TOO_LARGE = _reply(552, "5.3.4", "Error: message file too big")
    # After Exim's message_linelength_limit.
    TEXT_LINE_TOO_LONG = _reply(552, "5.6.0", "maximum allowed line length is exceeded")
    ADDRESS_TOO_LONG = _reply(553, "5.1.7", "Error: a local part has at most 64 octets, a domain 255, a path 256")
    NEEDS_SMTPUTF8 = _reply(553, "5.6.7", "Address contains non-ASCII characters, SMTPUTF8 was not requested")
    NO_VALID_RECIPIENTS = _reply(554, "5.5.1", "Error: no valid recipients")
    # After Exim's smtp_enforce_sync.
    OUT_OF_TURN = _reply(554, "5.5.0", "SMTP synchronization error")
    NOT_ANNOUNCED_8BIT = _reply(554, "5.6.1", "8-bit content was not announced with BODY=8BITMIME")
    UNKNOWN_PARAMETER = _reply(555, "5.5.4", "Unsupported option")


def encoded_replies(*, enhanced: bool) -> dict[OrdinaryReply, bytes]:
    """Return every ordinary reply, encoded for sending."""
    return {phrase: phrase.value.encode(enhanced=enhanced) for phrase in OrdinaryReply}
