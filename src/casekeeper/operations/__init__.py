"""WHAT: which operations there are, what they need, and what they may see."""
