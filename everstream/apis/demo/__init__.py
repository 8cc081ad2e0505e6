"""Faults at the press of a button, for demonstrations. Served only with EVERSTREAM_DEMO=1."""
