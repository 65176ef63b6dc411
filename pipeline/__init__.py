"""Wiring only: configuration, the pipeline, its runners, its records, and the command line."""
