"""What the pages of the console show: one module for each page, typed rows, read from counts and by indexes.

===========  ==================================================================
page         lists in pages, by key
now          what is due and leaves, the minutes of a day, what is undecided
receivers    outcomes by sender and mailbox provider, their events and replies
shaping      changes that slow senders down, and the replies that caused them
campaigns    the parts of a campaign's audience, and the messages of each part
variants     the messages of each variant of a step
returned     returned mail by verdict and rule
undecided    dead and unknown messages by cause
warmups      the caps of senders that warm up, and their plans
domains      what DNS checks found of the senders, and what changed
mail_reports sources and rows of DMARC reports, results and rows of TLS reports
people       audiences, imports, refusals, suppressions
===========  ==================================================================

A number and its list are read with the same condition, so the list has as many rows as the number says. No
function reads more rows as the ledger grows.
"""
