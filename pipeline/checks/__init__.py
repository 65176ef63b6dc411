"""Checks of a machine, an image, an engine and a disk, before or while a run writes."""
