"""What each stage does: one module a stage, ``python -m tasks <stage>``; and programs beside them: detect, promote."""
