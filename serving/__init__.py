"""What serves a pushed version, and what asks for it: the embedded server, TF Serving's start, the clients."""
