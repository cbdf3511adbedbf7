"""Sessions: a caller's stretches of work in one casefile, and reading what happened in them."""
