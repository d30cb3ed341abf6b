"""A mail provider on loopback that misbehaves on request: for the demo, the tests and rehearsals.

    async with Sandbox(SandboxConfig(directory="sandbox"), rng=Random(7)) as sandbox:
        ...  # deliver to sandbox.host, sandbox.port
        sandbox.use([Rule(phase=Phase.RCPT, domain="gmail.test", fault=Fault(reply="gmail-no-such-user"))])
        sandbox.accepted()

It only receives: it opens, clicks and answers nothing. Faults come from rules
(:mod:`postroad.sandbox.rules`), from the addresses themselves (:mod:`postroad.sandbox.addresses`) or from
personas (:mod:`postroad.sandbox.personas`); what providers say stands in ``replies.toml``.
"""

from postroad.sandbox.config import Extension, Keep, Mechanism, SandboxConfig, load_config
from postroad.sandbox.context import Counters
from postroad.sandbox.ledger import Accepted, accepted
from postroad.sandbox.personas import Cast, Persona, known_personas, parse_shares
from postroad.sandbox.replies import ProviderReply, provider_replies
from postroad.sandbox.rules import Ending, Fault, Lack, Phase, Rate, Rule, Scope
from postroad.sandbox.server import Sandbox, serve

__all__ = [
    "Accepted",
    "Cast",
    "Counters",
    "Ending",
    "Extension",
    "Fault",
    "Keep",
    "Lack",
    "Mechanism",
    "Persona",
    "Phase",
    "ProviderReply",
    "Rate",
    "Rule",
    "Sandbox",
    "SandboxConfig",
    "Scope",
    "accepted",
    "known_personas",
    "load_config",
    "parse_shares",
    "provider_replies",
    "serve",
]
