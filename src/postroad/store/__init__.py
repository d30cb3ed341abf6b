"""The truth: tables, and the set-based SQL on them. One module for each aggregate."""
