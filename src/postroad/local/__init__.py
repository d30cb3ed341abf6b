"""The local stack: the servers and workers that `postroad up` and `postroad demo` start and stop on one machine."""
