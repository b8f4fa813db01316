"""Optical flow between neighbouring frames."""
