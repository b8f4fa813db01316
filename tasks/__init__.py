"""What each stage does: one thin program a stage, ``python -m tasks.<stage>``."""
