"""Servers and worker on one machine: restarts, shutdown, pool and limit, deployments."""

import importlib
import inspect
import re
import socket
import sys
import time

import pytest
import yaml

from flows import serve
from tests.helpers.project import LONG_ENOUGH, ROOT
from tests.helpers.waiting import wait_until
from vadcore.utils.errors import VadError


@pytest.fixture
def services(tmp_path, monkeypatch):
    """Services whose commands are one-line modules in the current folder."""
    monkeypatch.setattr(serve, "LOOK_SECONDS", 0.01)
    (tmp_path / "last.py").write_text("import time; time.sleep(6000)")
    (tmp_path / "ends.py").write_text("import sys; print('bad luck'); sys.exit(3)")
    services = serve.Services(tmp_path, {})
    yield services
    services.stop()


class TestServices:
    def test_ended_service_ends_the_watch(self, services, capfd):
        services.start("first", "last")
        services.start("second", "ends")
        with pytest.raises(VadError, match=r"second .*exit code 3"):
            services.watch({})
        wait_until(lambda: "second  | bad luck" in capfd.readouterr().out)

    def test_proven_service_is_restarted(self, services, capfd):
        starts = []

        def start() -> None:
            starts.append(time.monotonic())
            if len(starts) == 3:
                raise KeyboardInterrupt
            services.start("worker", "ends")

        start()
        with pytest.raises(KeyboardInterrupt):
            services.watch({"worker": start}, proven_seconds=0.0)
        assert capfd.readouterr().out.count("worker has ended (exit code 3)") == 2

    def test_unproven_service_is_not_restarted(self, services):
        services.start("worker", "ends")
        with pytest.raises(VadError, match="worker"):
            services.watch({"worker": lambda: pytest.fail("started again")}, proven_seconds=LONG_ENOUGH)

    def test_wait_stops_when_service_ends(self, services):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))  # not listening
            services.start("prefect", "ends")
            with pytest.raises(VadError, match=r"prefect .*exit code 3"):
                services.wait_for("prefect", f"http://127.0.0.1:{free.getsockname()[1]}/health")

    def test_no_answer_in_time(self, services, monkeypatch):
        monkeypatch.setattr(serve, "START_SECONDS", 0.05)
        services.start("prefect", "last")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            with pytest.raises(VadError, match="prefect: no answer"):
                services.wait_for("prefect", f"http://127.0.0.1:{free.getsockname()[1]}/health")


class TestCommand:
    @pytest.fixture
    def serve(self, project, monkeypatch):
        """Runs ``python -m flows.serve`` in this process; returns its exit status."""
        monkeypatch.setattr(serve.signal, "signal", lambda *_: None)

        def run(*words: str) -> object:
            monkeypatch.setattr(sys, "argv", ["serve", *words])
            with pytest.raises(SystemExit) as ended:
                serve.main()
            return ended.value.code

        return run

    def test_port_in_use(self, serve):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            line = serve("--prefect-port", str(port))
        assert line.startswith("error: ")
        assert str(port) in line
        assert "--prefect-port" in line
        assert "\n" not in line

    def test_address_of_another_machine(self, serve):
        assert "--host no address" in serve("--host", "no address")

    def test_worker_without_a_server(self, serve, monkeypatch):
        monkeypatch.delenv("PREFECT_API_URL", raising=False)
        assert "PREFECT_API_URL" in serve("worker")


@pytest.mark.xdist_group("prefect")
def test_setup_creates_pool_and_limit_once(prefect_server, capsys):
    from prefect.client.orchestration import get_client

    serve.setup(2)
    serve.setup(1)
    assert len(re.findall("^created ", capsys.readouterr().out, re.MULTILINE)) == 2
    with get_client(sync_client=True) as client:
        assert client.read_work_pool("gpu").type == "process"
        assert client.read_global_concurrency_limit_by_name("gpu").limit == 2  # the user's size is kept
        client.delete_global_concurrency_limit_by_name("gpu")


def test_deployments_match_flows():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for deployment in deployments:
        file, name = deployment["entrypoint"].split(":")
        flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
        assert set(deployment.get("parameters", {})) <= set(inspect.signature(flow.fn).parameters)
        assert deployment["work_pool"]["name"] == "gpu"
