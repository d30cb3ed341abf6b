"""Tasks of Prefect. Each calls the library, with retries, limits, artifacts and events."""
