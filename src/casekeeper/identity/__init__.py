"""WHO: accounts, API keys and tokens."""
