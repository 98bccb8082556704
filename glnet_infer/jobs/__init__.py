"""Work in pieces: photographs and videos that one process does, or many processes by Ray (``docs/archives.md``)."""
