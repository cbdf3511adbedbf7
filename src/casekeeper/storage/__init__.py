"""Stores: the databases behind the rooms' protocols."""
