"""The HTTP API for programs. `postroad console` serves it at `/api/v1`."""
