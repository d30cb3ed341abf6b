"""The domain name system: one resolver, and one module for each standard that is asked by it."""
