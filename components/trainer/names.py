"""Names of the files in the ModelRun artifact, which are for people. Imports nothing heavy.

loss.csv             `epoch` and its mean `loss`, a row for each epoch; with early stopping also `recall`
frequencies.parquet  the number of an item in a batch, `counted` in the training split and `estimated`, a row for each item
"""

LOSS_CURVE = "loss.csv"
FREQUENCIES = "frequencies.parquet"
COUNTED, ESTIMATED = "counted", "estimated"
