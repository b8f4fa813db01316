"""System metrics of the machine while a stage runs, sampled by MLflow's own collectors."""

from __future__ import annotations

import sys

import psutil


class SystemMetrics:
    """CPU, memory, disk and network metrics, and GPU metrics if NVML finds a GPU.

    Names and units are those of MLflow's system metrics.
    """

    def __init__(self):
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self._monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        try:
            self._monitors.append(GPUMonitor())
        except (ImportError, RuntimeError) as reason:  # no NVML, or no GPU
            print(f"no GPU metrics: {reason}", file=sys.stderr)
        psutil.cpu_percent()  # utilisation is measured since the previous call

    def sample(self) -> dict[str, float]:
        """Return one value per metric, ``system/<name>``; CPU utilisation is the mean since the previous sample."""
        values = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values.update({f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()})
            monitor.clear_metrics()
        return values
