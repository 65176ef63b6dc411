"""The values that stand for what is missing among model inputs. Imports nothing, so that the loss can be used without TFX."""

NO_ROW = -1
NO_ITEM = -1  # fingerprints are not negative
NO_AGE = -1
