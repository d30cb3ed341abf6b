"""One call into the library each, with its Prefect policy: retries, limits, artifacts, events."""
