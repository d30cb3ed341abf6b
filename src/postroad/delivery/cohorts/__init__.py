"""The cohort breaker: what came of a list's mail tells whether the rest of it may go."""
