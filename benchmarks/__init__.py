"""Speed benchmarks. Run one with ``python -m benchmarks.<name>``; ``make bench`` runs those that print ratios."""
