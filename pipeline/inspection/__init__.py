"""Shows what ML Metadata records: runs, artifacts, lineage, and differences between runs."""
