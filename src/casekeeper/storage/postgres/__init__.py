"""The store on a PostgreSQL server, shared by several processes."""
