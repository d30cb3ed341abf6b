"""The DNS checks of a sender's domain: one module for each standard, with a function from an identity to findings."""
