"""The doors, which do not know each other, and what all of them need."""
