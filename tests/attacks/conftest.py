"""The Prefect server and the operator's folder of the other tests: fixtures are found by name."""

from tests.campaign.conftest import house
from tests.prefect.conftest import api, http, prefect_client_settings, server

__all__ = ["api", "house", "http", "prefect_client_settings", "server"]
