"""One SMTP session as a state machine that maps a line or a message to a step, without waiting.

Its only side effect: an accepted message is stored before its step is returned.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

import msgspec

from postroad.sandbox import commands
from postroad.sandbox.authentication import Authentication
from postroad.sandbox.config import Extension
from postroad.sandbox.context import SandboxContext
from postroad.sandbox.framing import LineFlaw, TooLarge, content_flaw, unstuff_dots
from postroad.sandbox.phrases import OrdinaryReply
from postroad.sandbox.replies import SandboxReply
from postroad.sandbox.rulebook import RuleVerdict
from postroad.sandbox.rules import RulePhase
from postroad.sandbox.steps import NextState, SessionStep, StepFactory
from postroad.sandbox.storage import StoredEnvelope

#: Longest command line with its CRLF, in octets: RFC 5321 §4.5.3.1.4, RFC 4954 §4.
MAX_COMMAND_BYTES, MAX_AUTH_BYTES = 512, 12_288
#: Extensions lengthen MAIL: RFC 1870 §3 (26), RFC 6152 §2 (17), RFC 6531 §3.1 (10), RFC 4954 §3 (500).
MAX_MAIL_BYTES = MAX_COMMAND_BYTES + 26 + 17 + 10 + 500
#: After these a client must wait for the reply: RFC 2920 §3.1, RFC 4954 §4. The RFC lists NOOP and QUIT too, but data
#: after them is harmless.
_ENDS_GROUP = frozenset({"EHLO", "HELO", "DATA", "AUTH"})
_HELLO = re.compile(r"[^\s<>()@,;\\\"]{1,255}")


class SandboxTransaction(msgspec.Struct):
    """A transaction, from MAIL to the final dot (RFC 5321 §3.3)."""

    sender: str
    eight_bit: bool
    utf8: bool
    recipients: list[str] = []


class SmtpStateMachine:
    """The state of one session, from the greeting to QUIT. It is also the `SessionView` of the rules."""

    def __init__(self, context: SandboxContext, *, connection: int, ip: str, secure: bool) -> None:
        self.connection = connection
        self.ip = ip
        self.secure = secure
        self.transactions = 0
        self._context = context
        self._steps = StepFactory(context)
        self._authentication = Authentication(context)
        self._transaction: SandboxTransaction | None = None
        self._helo: str | None = None
        self._extended = False

    @property
    def sender(self) -> str | None:
        return self._transaction.sender if self._transaction else None

    @property
    def open_connections(self) -> int:
        return self._context.counters.open_connections

    def greet(self) -> SessionStep:
        greeting = f"220 {self._context.config.hostname} ESMTP Postroad sandbox\r\n"
        return self._decided(RulePhase.CONNECT, SessionStep(greeting.encode()))

    def secured(self) -> None:
        """Reset the session inside TLS. RFC 3207 §4.2: earlier commands of the client are discarded."""
        self.secure = True
        self._helo, self._transaction = None, None
        self._authentication = Authentication(self._context)

    def flawed(self, flaw: LineFlaw) -> SessionStep:
        return self._steps.error(flaw.value)

    def command(self, line: bytes, *, more: bool) -> SessionStep:
        """Process one line. ``more``: whether further octets have arrived already."""
        if self._authentication.in_progress:
            return self._authenticated(self._authentication.respond(line))
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return self._steps.error(OrdinaryReply.BAD_UTF8)
        verb, _, arguments = text.partition(" ")
        verb = verb.upper()
        handler = self._handlers.get(verb)
        if handler is None:
            return self._steps.error(OrdinaryReply.UNKNOWN_COMMAND)
        if len(line) + 2 > _LIMITS.get(verb, MAX_COMMAND_BYTES):
            return self._steps.error(OrdinaryReply.LINE_TOO_LONG)
        if more and self._out_of_turn(verb):
            return self._steps.reply(OrdinaryReply.OUT_OF_TURN, NextState.CLOSE)
        return handler(self, arguments)

    def message(self, arrived: bytes | TooLarge) -> SessionStep:
        """Process a message after its final dot. It is stored before this returns, or rejected."""
        transaction, config = self._transaction, self._context.config
        if transaction is None or not transaction.recipients:
            self._transaction = None
            return self._steps.refuse(RulePhase.DOT, OrdinaryReply.NO_VALID_RECIPIENTS)
        content = b"" if isinstance(arrived, TooLarge) else unstuff_dots(arrived)
        if isinstance(arrived, TooLarge) or len(content) > config.max_message_bytes:
            self._transaction = None
            return self._steps.refuse(RulePhase.DOT, OrdinaryReply.TOO_LARGE)
        eight_bit = transaction.eight_bit or not config.enforce_7bit
        flaw = content_flaw(content, max_line_bytes=config.max_line_bytes, eight_bit=eight_bit)
        if flaw is not None:
            self._transaction = None
            return self._steps.refuse(RulePhase.DOT, flaw)
        verdict = self._context.decide(RulePhase.DOT, self, transaction.recipients, content)
        step = self._store_message(transaction, verdict, content)
        self._transaction = None
        return step

    def _store_message(
        self, transaction: SandboxTransaction, verdict: RuleVerdict | None, content: bytes
    ) -> SessionStep:
        counters = self._context.counters
        refused = verdict is not None and verdict.refuses
        ordinary = SessionStep(b"")
        if not refused or (verdict is not None and verdict.fault.keep):
            envelope = StoredEnvelope(
                transaction.sender,
                tuple(transaction.recipients),
                self._helo or "",
                self.ip,
                self._protocol(transaction),
            )
            try:
                queue_id = self._context.storage.store(envelope, content)
            except OSError:
                return self._steps.refuse(RulePhase.DOT, OrdinaryReply.NO_SPACE)
            code = "250 2.0.0" if self._steps.enhanced else "250"
            ordinary = SessionStep(f"{code} Ok: queued as {queue_id}\r\n".encode())
            counters.kept_unsaid += refused
        if not refused:
            counters.accepted += 1
            counters.accepted_recipients += len(transaction.recipients)
        return self._with_verdict(RulePhase.DOT, verdict, ordinary)

    # The handlers of the commands.

    def _ehlo(self, arguments: str) -> SessionStep:
        return self._hello(arguments, extended=True)

    def _helo_only(self, arguments: str) -> SessionStep:
        return self._hello(arguments, extended=False)

    def _hello(self, arguments: str, *, extended: bool) -> SessionStep:
        name = arguments.strip()
        if not _HELLO.fullmatch(name):
            return self._steps.error(OrdinaryReply.EHLO_SYNTAX, RulePhase.EHLO)
        verdict = self._context.decide(RulePhase.EHLO, self)
        if verdict is None or not verdict.refuses:
            self._helo, self._extended, self._transaction = name, extended, None
        lines = [self._context.config.hostname]
        if extended:
            lines += self._keywords()
        ordinary = SandboxReply(250, "", tuple(lines))
        return self._with_verdict(RulePhase.EHLO, verdict, SessionStep(ordinary.encode()))

    def _keywords(self) -> list[str]:
        offered, config = self._context.offered, self._context.config
        values = {
            Extension.SIZE: f"SIZE {config.max_message_bytes}",
            Extension.AUTH: f"AUTH {' '.join(config.auth_mechanisms)}",
        }
        return [
            values.get(extension, extension.value)
            for extension in Extension
            if extension in offered and not (extension is Extension.STARTTLS and self.secure)
        ]

    def _starttls(self, arguments: str) -> SessionStep:
        if not self._offers(Extension.STARTTLS):
            return self._steps.error(OrdinaryReply.NOT_OFFERED, RulePhase.STARTTLS)
        if self.secure:
            return self._steps.error(OrdinaryReply.ALREADY_SECURE, RulePhase.STARTTLS)
        if arguments:
            return self._steps.error(OrdinaryReply.NO_PARAMETERS, RulePhase.STARTTLS)
        return self._decided(RulePhase.STARTTLS, self._steps.reply(OrdinaryReply.READY_FOR_TLS, NextState.TLS))

    def _auth(self, arguments: str) -> SessionStep:
        words = arguments.split()
        problem = OrdinaryReply.NOT_OFFERED if not self._offers(Extension.AUTH) else None
        if problem is None and self._context.config.require_tls and not self.secure:
            problem = OrdinaryReply.TLS_REQUIRED
        if problem is None and self._transaction is not None:
            problem = OrdinaryReply.AUTH_IN_TRANSACTION
        problem = problem or self._authentication.refusal_of(words)
        if problem is not None:
            return self._steps.error(problem, RulePhase.AUTH)
        verdict = self._context.decide(RulePhase.AUTH, self)
        if verdict is not None and verdict.refuses:
            return self._with_verdict(RulePhase.AUTH, verdict, SessionStep(b""))
        return self._with_verdict(RulePhase.AUTH, verdict, self._authenticated(self._authentication.begin(words)))

    def _authenticated(self, outcome: bytes | OrdinaryReply) -> SessionStep:
        if isinstance(outcome, bytes):
            return SessionStep(outcome)
        if outcome is OrdinaryReply.AUTHENTICATED:
            return self._steps.reply(outcome)
        return self._steps.error(outcome, RulePhase.AUTH)

    def _mail(self, arguments: str) -> SessionStep:
        problem = self._mail_problem()
        if problem is not None:
            return self._steps.error(problem, RulePhase.MAIL)
        parsed = commands.parse_from(arguments)
        if isinstance(parsed, OrdinaryReply):
            return self._steps.error(parsed, RulePhase.MAIL)
        sender, parameters = parsed
        problem = commands.parameter_refusal(parameters, self._offers, self._context.config.max_message_bytes)
        if problem is None and not sender.isascii() and "SMTPUTF8" not in parameters:
            problem = OrdinaryReply.NEEDS_SMTPUTF8
        if problem is OrdinaryReply.TOO_LARGE:
            return self._steps.refuse(RulePhase.MAIL, problem)
        if problem is not None:
            return self._steps.error(problem, RulePhase.MAIL)
        self._transaction = SandboxTransaction(
            sender, eight_bit=parameters.get("BODY", "").upper() == "8BITMIME", utf8="SMTPUTF8" in parameters
        )
        verdict = self._context.decide(RulePhase.MAIL, self)
        step = self._with_verdict(RulePhase.MAIL, verdict, self._steps.reply(OrdinaryReply.SENDER_OK))
        if verdict is not None and verdict.refuses:
            self._transaction = None
        else:
            self.transactions += 1
        return step

    def _mail_problem(self) -> OrdinaryReply | None:
        config = self._context.config
        if self._helo is None:
            return OrdinaryReply.HELLO_FIRST
        if config.require_tls and not self.secure:
            return OrdinaryReply.TLS_REQUIRED
        if config.require_auth and self._authentication.user is None:
            return OrdinaryReply.AUTH_REQUIRED
        return OrdinaryReply.NESTED_MAIL if self._transaction is not None else None

    def _rcpt(self, arguments: str) -> SessionStep:
        transaction = self._transaction
        if transaction is None:
            return self._steps.error(OrdinaryReply.NEED_MAIL, RulePhase.RCPT)
        parsed = commands.parse_to(arguments)
        if isinstance(parsed, OrdinaryReply):
            return self._steps.error(parsed, RulePhase.RCPT)
        recipient, parameters = parsed
        if parameters:
            return self._steps.error(OrdinaryReply.UNKNOWN_PARAMETER, RulePhase.RCPT)
        if not recipient.isascii() and not transaction.utf8:
            return self._steps.error(OrdinaryReply.NEEDS_SMTPUTF8, RulePhase.RCPT)
        if len(transaction.recipients) >= self._context.config.max_recipients:
            return self._steps.refuse(RulePhase.RCPT, OrdinaryReply.TOO_MANY_RECIPIENTS)
        verdict = self._context.decide(RulePhase.RCPT, self, (recipient,))
        if verdict is None or not verdict.refuses:
            transaction.recipients.append(recipient)
        return self._with_verdict(RulePhase.RCPT, verdict, self._steps.reply(OrdinaryReply.RECIPIENT_OK))

    def _data(self, arguments: str) -> SessionStep:
        transaction = self._transaction
        if arguments:
            return self._steps.error(OrdinaryReply.NO_PARAMETERS, RulePhase.DATA)
        if transaction is None:
            return self._steps.error(OrdinaryReply.NEED_MAIL, RulePhase.DATA)
        if not transaction.recipients and not self._context.config.data_without_recipients:
            return self._steps.refuse(RulePhase.DATA, OrdinaryReply.NO_VALID_RECIPIENTS)
        verdict = self._context.decide(RulePhase.DATA, self, transaction.recipients)
        step = self._with_verdict(RulePhase.DATA, verdict, self._steps.reply(OrdinaryReply.GO_AHEAD, NextState.CONTENT))
        if verdict is not None and verdict.refuses:
            self._transaction = None
        return step

    def _rset(self, arguments: str) -> SessionStep:
        if arguments:
            return self._steps.error(OrdinaryReply.NO_PARAMETERS)
        self._transaction = None
        return self._steps.reply(OrdinaryReply.OK)

    def _noop(self, _arguments: str) -> SessionStep:
        return self._steps.reply(OrdinaryReply.OK)

    def _vrfy(self, _arguments: str) -> SessionStep:
        return self._steps.reply(OrdinaryReply.NO_VRFY)

    def _quit(self, _arguments: str) -> SessionStep:
        return self._decided(RulePhase.QUIT, self._steps.reply(OrdinaryReply.BYE, NextState.CLOSE))

    _handlers: ClassVar[dict[str, Callable[[SmtpStateMachine, str], SessionStep]]] = {
        "EHLO": _ehlo,
        "HELO": _helo_only,
        "STARTTLS": _starttls,
        "AUTH": _auth,
        "MAIL": _mail,
        "RCPT": _rcpt,
        "DATA": _data,
        "RSET": _rset,
        "NOOP": _noop,
        "VRFY": _vrfy,
        "EXPN": _vrfy,
        "QUIT": _quit,
    }

    def _decided(self, phase: RulePhase, ordinary: SessionStep) -> SessionStep:
        return self._with_verdict(phase, self._context.decide(phase, self), ordinary)

    def _with_verdict(self, phase: RulePhase, verdict: RuleVerdict | None, ordinary: SessionStep) -> SessionStep:
        if verdict is None:
            return ordinary
        local_part, _, domain = verdict.recipient.rpartition("@")
        sender = self.sender or ""
        fields = {
            "ip": self.ip,
            "hostname": self._context.config.hostname,
            "id": f"{self.connection:x}-{self.transactions:x}",
            "recipient": verdict.recipient,
            "local_part": local_part,
            "domain": domain,
            "sender": sender,
            "sender_domain": sender.rpartition("@")[2],
        }
        return self._steps.with_verdict(phase, verdict, ordinary, fields)

    def _offers(self, extension: Extension) -> bool:
        return self._extended and extension in self._context.offered

    def _out_of_turn(self, verb: str) -> bool:
        if not self._context.config.enforce_sync:
            return False
        pipelining = Extension.PIPELINING in self._context.offered
        return verb in _ENDS_GROUP or (not pipelining and verb not in ("QUIT", "STARTTLS"))

    def _protocol(self, transaction: SandboxTransaction) -> str:
        """Return the protocol for Received. RFC 3848: S for TLS, A for AUTH. RFC 6531 §4.3: UTF8 as prefix."""
        if not self._extended:
            return "SMTP"
        base = "UTF8SMTP" if transaction.utf8 else "ESMTP"
        return f"{base}{'S' if self.secure else ''}{'A' if self._authentication.user is not None else ''}"


_LIMITS = {"AUTH": MAX_AUTH_BYTES, "MAIL": MAX_MAIL_BYTES}
