"""Pushed versions: shown, mirrored, rolled back, removed."""
