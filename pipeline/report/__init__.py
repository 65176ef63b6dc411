"""An HTML page about the runs of several days."""
