"""The graph whose first part computes in bfloat16, for CPUs: where it is cut, what it costs."""
