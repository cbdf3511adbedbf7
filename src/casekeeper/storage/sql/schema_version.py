"""Which schema this casekeeper has."""

NEWEST = "0009"
"""The newest migration; a store at it needs none."""


class SchemaTooNew(Exception):
    """The store was written by a newer casekeeper."""
