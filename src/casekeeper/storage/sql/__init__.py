"""What the SQL stores share: a module a concept, written once for SQLite and PostgreSQL."""
