"""Backups of the database: an archive of a dump, the generated key, and a manifest that a restored copy must match."""
