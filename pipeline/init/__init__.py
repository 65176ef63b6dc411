"""Drafts a dataset's feature specification and configuration from a user's files."""
