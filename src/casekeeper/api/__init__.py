"""RESPOND: the HTTP door."""
