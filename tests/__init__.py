"""The tests of casekeeper."""
