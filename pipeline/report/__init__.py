"""One HTML page that says how the days went."""
