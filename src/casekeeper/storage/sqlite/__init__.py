"""The embedded store: one directory, held by one process."""
