"""What servers of others run of this library. There is no server of our own."""
