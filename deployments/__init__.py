"""How the flows are installed on a Prefect server."""
