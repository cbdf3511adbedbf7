"""Agents: models that work with the casefile's tools, in the same corridor and under the same rights as their caller.

This is the only room that imports PydanticAI. `registry` and `routes` do not; they load the other modules in a thread
at the first run, since that takes seconds.
"""
