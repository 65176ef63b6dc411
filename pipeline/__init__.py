"""Wiring only: configuration, the pipeline, its runners, its records, and the command line."""

import os

# ML Metadata's library tells standard error of each connection that it makes. What matters comes as an exception.
os.environ.setdefault("GLOG_minloglevel", "3")
