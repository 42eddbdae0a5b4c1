"""Flows: which step, in what order, what is reported, and when a run fails."""
