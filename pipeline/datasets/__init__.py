"""Example data, fetched and written as a user's own would be."""
