"""How others come in: what every door needs, and the doors, which do not know each other."""
