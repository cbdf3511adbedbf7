"""A casefile with all that belongs to it as one file, which moves it from one store into another."""
