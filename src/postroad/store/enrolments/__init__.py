"""Every statement that writes the table ``enrolment``, and the reads of what is to be done.

`transitions` is the table of states and of what moves an enrolment from one to another. `changes` writes, and takes the
states from there. `pending` finds enrolments that are due, and touches whose end moves one.
"""
