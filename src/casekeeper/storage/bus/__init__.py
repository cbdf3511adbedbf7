"""Hints between the processes of one store; nothing depends on them."""
