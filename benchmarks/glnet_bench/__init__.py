"""glnet-bench: how long a bundle takes, on which backend, and how far that is from what the machine can do."""
