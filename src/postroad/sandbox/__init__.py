"""A mail provider on loopback that misbehaves on request: for the demo, the tests and rehearsals.

    async with Sandbox(SandboxConfig(directory="sandbox"), rng=Random(7)) as sandbox:
        ...  # deliver to sandbox.host, sandbox.port
        sandbox.use([SandboxRule(phase=RulePhase.RCPT, domain="gmail.test", fault=Fault(reply="gmail-no-such-user"))])
        sandbox.accepted()

It only receives: it does not open or click messages, or reply to them. Faults come from rules
(:mod:`postroad.sandbox.rules`), from recipients' addresses (:mod:`postroad.sandbox.addresses`) or from personas
(:mod:`postroad.sandbox.personas`). ``replies.toml`` has the replies of real providers.
"""

from postroad.sandbox.accepted_log import AcceptedMessage, accepted
from postroad.sandbox.config import AuthMechanism, Extension, SandboxConfig, StorageMode, load_config
from postroad.sandbox.context import Counters
from postroad.sandbox.personas import Persona, PersonaMap, known_personas, parse_shares
from postroad.sandbox.replies import ProviderReply, provider_replies
from postroad.sandbox.rules import ConnectionEnding, Fault, MissingAuth, RulePhase, RuleRate, RuleScope, SandboxRule
from postroad.sandbox.server import Sandbox, serve

__all__ = [
    "AcceptedMessage",
    "AuthMechanism",
    "ConnectionEnding",
    "Counters",
    "Extension",
    "Fault",
    "MissingAuth",
    "Persona",
    "PersonaMap",
    "ProviderReply",
    "RulePhase",
    "RuleRate",
    "RuleScope",
    "Sandbox",
    "SandboxConfig",
    "SandboxRule",
    "StorageMode",
    "accepted",
    "known_personas",
    "load_config",
    "parse_shares",
    "provider_replies",
    "serve",
]
