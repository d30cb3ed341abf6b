"""The command `postroad`."""
