"""Events out: each delivery event to the endpoints of the settings, signed by Standard Webhooks, and to files."""
