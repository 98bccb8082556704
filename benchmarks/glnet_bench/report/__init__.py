"""The report: tables and charts from a record alone."""
