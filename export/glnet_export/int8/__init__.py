"""A graph whose convolutions compute in int8, for CPUs: ranges, layers, what it costs."""
