"""What ML Metadata knows, as a person asks for it: runs, artifacts, what came from what, what differs."""
