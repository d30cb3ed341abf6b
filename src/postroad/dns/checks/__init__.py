"""What is right and wrong with a domain: one module for each standard, each a function from an identity to findings."""
