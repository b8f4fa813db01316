"""Pseudo-anomalies: moving objects cut out of normal footage, altered, and pasted into other windows of it."""
