"""Stores: what the rooms' protocols promise, kept on disk."""
