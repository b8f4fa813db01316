"""What measures speed. Run as ``python -m benchmarks.<name>``; ``make bench`` runs those that print ratios."""
