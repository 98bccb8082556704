"""Rows of tables that are trained on one budget and scored on the same crops."""
