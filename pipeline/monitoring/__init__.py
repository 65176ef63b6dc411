"""What is watched: metrics, missed days, what stands, served queries beside training data."""
