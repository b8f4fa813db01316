"""System metrics of the machine while a stage runs, sampled by MLflow's own collectors."""

from __future__ import annotations

import sys

import psutil


class SystemMetrics:
    """CPU, memory, disk, network and, where NVML sees one, GPU: names and units as MLflow's system metrics."""

    def __init__(self):
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self._monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        try:
            self._monitors.append(GPUMonitor())
        except (ImportError, RuntimeError) as reason:  # how it says that there is no NVML, or no GPU
            print(f"no GPU metrics: {reason}", file=sys.stderr)
        psutil.cpu_percent()  # utilisation is since the call before

    def sample(self) -> dict[str, float]:
        """One value a metric, ``system/<name>``; CPU utilisation is the mean since the sample before."""
        values = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values.update({f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()})
            monitor.clear_metrics()
        return values
