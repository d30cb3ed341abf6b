"""Delivers mail: from a due touch to the row that records its outcome.

=================  ===============================================================
submit             makes jobs of due touches
admit              lets the ledger admit or delay each batch of jobs
handler            handles one job: composes, signs and sends the message
compiled_steps     the templates of steps, compiled once
outcome            classifies replies; pure functions
result             the result of an attempt, from the reply to the ledger
routes, direct     sends to relays, or to the mail hosts of each domain
signing            signs with DKIM in separate processes
recorder           writes events of the queue to the ledger
=================  ===============================================================
"""
