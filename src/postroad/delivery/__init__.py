"""Delivers mail: from a due touch to the row that records its outcome.

=================  ===============================================================
submit             makes jobs of due touches
admit              lets the ledger admit or delay each batch of jobs
handler            handles one job: composes, signs and sends the message
outcome            classifies replies; pure functions
routes, direct     sends to relays, or to the mail hosts of each domain
signing            signs with DKIM in separate processes
record             writes events of the queue to the ledger
=================  ===============================================================
"""
