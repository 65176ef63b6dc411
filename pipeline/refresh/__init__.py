"""The refresh of a live version with a newer catalogue."""
