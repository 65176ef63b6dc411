"""Drafts a dataset's feature specification and configuration from the files that somebody has."""
