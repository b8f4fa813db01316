"""Video anomaly detection: footage -> frames -> flow -> model -> scores. See README.md."""

__version__ = "0.1.0"
