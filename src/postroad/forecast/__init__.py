"""Forecasts how a campaign's mail will leave, hour by hour, from the limits that the queue will obey.

=========  ==================================================================
following  which email follows, and when, also in a journey
demand     reads what is to be sent: how much, when it is due, and to whom
limits     reads the limits of gates: settings, shaping, warmup, the queue
gates      a gate in a simulation: how much it admits, and when it opens
simulate   simulates how mail leaves through gates, in steps; pure
rollout    the shares of a rollout: when each is let go
helps      what would let a campaign end earlier
report     the forecast as commands show it
what_if    settings with single values replaced
forecast   makes the forecast of a campaign, and finds what would help
=========  ==================================================================
"""
