"""A house on one machine: the servers and workers that `postroad up` and `postroad demo` start and stop."""
