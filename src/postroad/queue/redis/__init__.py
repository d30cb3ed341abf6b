"""Finds, opens and checks the Redis or Valkey servers of a queue: one server, Sentinel or Cluster."""
