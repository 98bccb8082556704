"""The command line ``glnet-train``: the only room of the training that prints."""
