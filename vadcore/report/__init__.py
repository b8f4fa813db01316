"""The report of a run: one HTML page, and the same figures as JSON and CSV."""

from vadcore.report.build import build_report

__all__ = ["build_report"]
