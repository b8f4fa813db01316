"""The stages, one module each, run as ``python -m tasks <stage>``, and the commands detect and promote."""
