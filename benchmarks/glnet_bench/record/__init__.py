"""The record of a run, typed: what is measured is written into it, and all that is reported is read from it."""
