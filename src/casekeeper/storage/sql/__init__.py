"""Shared by the SQL stores: one module per concept, for SQLite and PostgreSQL alike."""
