"""A mail provider on loopback that misbehaves on request: for the demo, the tests and rehearsals.

    async with Sandbox(SandboxConfig(directory="sandbox"), rng=Random(7)) as sandbox:
        ...  # deliver to sandbox.host, sandbox.port
        sandbox.use([SandboxRule(phase=RulePhase.RCPT, domain="gmail.test", fault=Fault(reply="gmail-no-such-user"))])
        sandbox.accepted()

It only receives: it opens, clicks and answers nothing. Faults come from rules
(:mod:`postroad.sandbox.rules`), from the addresses themselves (:mod:`postroad.sandbox.addresses`) or from
personas (:mod:`postroad.sandbox.personas`); what providers say stands in ``replies.toml``.
"""

from postroad.sandbox.config import AuthMechanism, Extension, Keep, SandboxConfig, load_config
from postroad.sandbox.context import Counters
from postroad.sandbox.ledger import AcceptedMessage, accepted
from postroad.sandbox.personas import Cast, Persona, known_personas, parse_shares
from postroad.sandbox.replies import ProviderReply, provider_replies
from postroad.sandbox.rules import ConnectionEnding, Fault, MissingAuth, RulePhase, RuleRate, RuleScope, SandboxRule
from postroad.sandbox.server import Sandbox, serve

__all__ = [
    "AcceptedMessage",
    "AuthMechanism",
    "Cast",
    "ConnectionEnding",
    "Counters",
    "Extension",
    "Fault",
    "Keep",
    "MissingAuth",
    "Persona",
    "ProviderReply",
    "RulePhase",
    "RuleRate",
    "RuleScope",
    "Sandbox",
    "SandboxConfig",
    "SandboxRule",
    "accepted",
    "known_personas",
    "load_config",
    "parse_shares",
    "provider_replies",
    "serve",
]
