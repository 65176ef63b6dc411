"""What training leaves for people in the ModelRun artifact. Nothing heavy is imported.

loss.csv             `epoch` and its mean `loss`, a row an epoch; with early stopping `recall` too
frequencies.parquet  how many of a batch are of an item, `counted` in the training split and `estimated`, a row an item
"""

LOSS_CURVE = "loss.csv"
FREQUENCIES = "frequencies.parquet"
COUNTED, ESTIMATED = "counted", "estimated"
