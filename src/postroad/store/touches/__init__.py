"""Every statement that writes the table ``touch``, one module for each use.

`transitions` is the table of states and of what moves a touch from one to another; each statement takes the states that
it accepts from there. `planning` inserts touches, and `requests` those that a program requests. `sending` moves them to
the queue and to the wire, `results` records what became of them, and `ending` ends and deletes them. To end a sequence,
it also inserts touches of steps that are not planned yet, as cancelled.
"""
