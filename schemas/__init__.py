"""The data contract: what a row is, which feature feeds which tower. One folder a dataset."""
