"""Installs the flows on a Prefect server."""
