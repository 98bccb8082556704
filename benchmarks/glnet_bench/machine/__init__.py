"""The machine under measurement: hardware, clocks, GPU, and the code that ran."""
