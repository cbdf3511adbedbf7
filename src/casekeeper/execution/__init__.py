"""RUN: the corridor that every operation passes, and what goes on around it."""
