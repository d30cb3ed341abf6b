"""The application: one module for each thing that a command, a flow, a page or a rehearsal does.

=============  ==================================================================
context        the real parts that the settings name, opened together
preflight      check a campaign before its launch, also over the network
proof          send the messages of a campaign to the operator
submit         submit due touches to the queue: gates, overflow, jobs
advance        one pass over a running campaign: plan, submit, finish
warmup         close a sender's day, set the caps, plan mail to its seed list
rebuild        make jobs again that a queue lost
replay         send dead letters again
unknown        resolve a touch of which it is unknown whether it was sent
worker         what a worker of each queue runs
recorder       what a recorder runs
webhooks       feed, list, redeliver and replay events to endpoints
events         export events as files
=============  ==================================================================

Callers wire nothing themselves: they open a context and call one of these.
"""
