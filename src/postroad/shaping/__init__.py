"""How fast a sender may send to a mailbox provider: limits and rules of shaping.toml, and changes that replies cause.

=============  ===================================================================
config         shaping.toml: what is shipped, and the operator's file
limits         limits of a receiver, and the scope that they hold for
rules          which replies change limits
decide         the change that a reply causes: pure
shaper         acts: stores changes and applies them to gates
gate_source    what limits and open changes contribute to gates
describe       limits and changes in words, for commands
=============  ===================================================================
"""
