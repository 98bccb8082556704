"""The floor: how fast a processor could compute the graph at best."""
