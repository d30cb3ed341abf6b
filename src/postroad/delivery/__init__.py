"""Delivers mail: from a due touch to the row that says what became of it.

=================  ===============================================================
submit             touches become jobs of a queue
admit              the ledger admits each batch of jobs, or delays it
handler            one job: compose, sign, send, decide
outcome            what a reply means for a touch: pure
routes, direct     the relays, or the mail hosts of each domain
signing            DKIM, in a process of its own
record             events of the queue become rows of the ledger
=================  ===============================================================
"""
