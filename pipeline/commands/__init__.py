"""The commands of `ndr`, a module for each group; `pipeline.cli` puts them together."""
