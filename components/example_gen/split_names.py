"""The splits of a catalogue's examples, by a module that imports nothing."""

CATALOGUE_SPLIT = "catalogue"
BLOCKED_SPLIT = "blocked"
