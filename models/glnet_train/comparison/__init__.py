"""Rows of tables, trained on one budget and scored on the same crops: the poster's ablations, and experiments of one's own.

A row changes fields of the network, recipe, matching or loss weights; all else is shared. Rows of several tables with the
same settings are trained once.
"""
