"""The Prefect server of the other tests: fixtures are found by name."""

from tests.prefect.conftest import api, http, prefect_client_settings, server

__all__ = ["api", "http", "prefect_client_settings", "server"]
