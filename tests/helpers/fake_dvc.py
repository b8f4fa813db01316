"""A fake DVC for tests of the flows: a small graph in memory, and processes that print DVC's messages."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.graph import CHANGED, CLEAN, MISSING, Graph, Node
from tests.helpers.project import LONG_ENOUGH

STATED = "params.yaml: no good; write something better"


def toy_nodes() -> dict[str, Node]:
    """The graph of ``flow_project.DVC_YAML``: two data sets, two models, a report."""
    nodes = [Node(f"prepare@{dataset}", "prepare", {"dataset": dataset}) for dataset in "ab"]
    nodes += [
        Node(f"train@{dataset}-{model}", "train", {"dataset": dataset, "model": model}, (f"prepare@{dataset}",))
        for dataset in "ab"
        for model in ("m-1", "m2")
    ]
    nodes.append(Node("report", "report", {}, tuple(sorted(node.address for node in nodes if node.kind == "train"))))
    return {node.address: node for node in nodes}


class FakeGraph(Graph):
    """The graph of a FakeDvc. Selection and order come from Graph."""

    def __init__(self, dvc: "FakeDvc"):
        self._dvc, self.nodes = dvc, dvc.nodes

    @property
    def remote(self) -> str | None:
        return None if self._dvc.remote is None else "store"

    def states(self) -> dict[str, str]:
        return self._dvc.states()


@dataclass
class Command:
    """A started DVC command. address: its stage, empty unless the command is ``repro``."""

    words: list[str]
    nice: int
    environment: Mapping[str, str]
    seconds: float
    address: str = ""


class FakeDvc:
    """DVC's state and commands.

    work: what each stage does when it runs: ``say ...`` (nothing), ``fail`` (prints an error), ``crash N`` (crashes N
    times), ``kill`` (its process is killed), ``overdue`` (runs until its time limit), ``meet ADDRESS`` (waits until
    that stage runs too), ``wait`` (waits until ``go`` is set or the process is stopped). A stage is changed if its
    work is.
    remote: the contents of the DVC remote, None without a remote. away: whether the remote is down. busy: how many
    more commands find DVC locked by another process.
    """

    def __init__(self):
        self.nodes = toy_nodes()
        self.work = dict.fromkeys(self.nodes, "say one")
        self.locked: dict[str, tuple] = {}  # address -> inputs, as in dvc.lock
        self.here: set[str] = set()  # addresses whose files are in the folder
        self.cache: set[tuple] = set()  # (address, inputs) that were made here
        self.remote: set[tuple] | None = None
        self.away, self.busy = False, 0
        self.commands: list[Command] = []
        self.events: list[tuple[str, str]] = []  # ("begin" or "end", address), in order
        self.go = threading.Event()
        self._changed = threading.Condition()

    def change(self, **works: str) -> None:
        """Change the work of stages: ``m2=...`` of those that train m2, ``a=...`` of prepare@a, ``report=...``."""
        for address, node in self.nodes.items():
            name = node.axes.get("model") or node.axes.get("dataset") or "report"
            if name.replace("-", "_") in works:
                self.work[address] = works[name.replace("-", "_")]

    def graph(self, root: Path) -> FakeGraph:
        return FakeGraph(self)

    def start(self, command: Sequence[str], folder: Path, environment, nice=0, threads=None, seconds=float("inf")):
        environment = {**({} if threads is None else {"OMP_NUM_THREADS": str(threads)}), **environment}
        words = list(command[command.index("--wait-for-lock") + 1 :])
        address = next((word for word in words if word in self.nodes), "") if words[0] == "repro" else ""
        begun = Command(words, nice, environment, seconds, address)
        process = FakeProcess(self, begun)
        with self._changed:
            self.commands.append(begun)
        return process

    def ran(self) -> list[str]:
        """Addresses of the stages that have begun, in order."""
        return [address for what, address in self.events if what == "begin"]

    def repro(self, address: str) -> list[Command]:
        return [command for command in self.commands if command.address == address]

    def inputs(self, address: str) -> tuple:
        return (self.work[address], *(self.locked.get(needed) for needed in self.nodes[address].upstream))

    def states(self) -> dict[str, str]:
        return {
            address: CHANGED
            if self.locked.get(address) != self.inputs(address)
            else CLEAN
            if address in self.here
            else MISSING
            for address in self.nodes
        }

    def note(self, what: str, address: str) -> None:
        with self._changed:
            self.events.append((what, address))
            self._changed.notify_all()

    def wait_for(self, address: str) -> None:
        """Wait until the stage has begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: ("begin", address) in self.events, LONG_ENOUGH)

    def made(self, address: str) -> None:
        self.locked[address] = self.inputs(address)
        self.here.add(address)
        self.cache.add((address, self.locked[address]))


class FakeProcess:
    """A command of FakeDvc, with the interface of ``flows.process.Process``."""

    def __init__(self, dvc: FakeDvc, command: Command):
        self.dvc, self.command = dvc, command
        self.overdue, self.code = False, 0
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    def wait(self) -> int:
        return self.code

    def lines(self):
        verb = self.command.words[0]
        yield from {"repro": self._repro, "pull": self._pull, "push": self._push}[verb]()

    def _repro(self):
        dvc, address, words = self.dvc, self.command.address, self.command.words
        if dvc.busy:
            dvc.busy -= 1
            self.code = 255
            yield f"ERROR: '{address}' is busy, it is being blocked by:"
            yield "  (PID 4711): dvc repro"
            return
        if "--pull" in words:
            if dvc.away:
                self.code = 255
                yield "ERROR: failed to connect to the remote"
                return
            dvc.cache |= dvc.remote
        force, inputs = "--force" in words, dvc.inputs(address)
        if not force and dvc.locked.get(address) == inputs and address in dvc.here:
            yield f"Stage '{address}' didn't change, skipping"
        elif not force and (address, inputs) in dvc.cache and dvc.nodes[address].kind != "prepare":  # it is persisted
            yield f"Stage '{address}' is cached - skipping run, checking out outputs"
            dvc.made(address)
        else:
            yield f"Running stage '{address}':"
            yield from self._work(address)
        if not self.code:
            yield "To track the changes with git, run:"
            yield "\tgit add dvc.lock"

    def _work(self, address: str):
        dvc = self.dvc
        dvc.note("begin", address)
        verb, *words = dvc.work[address].split()
        yield f"{verb} for {address}"
        ended = None  # exit code of the stage's process
        if verb == "fail":
            yield f"error: {STATED}"
            ended = 1
        elif verb == "crash" and dvc.ran().count(address) <= int(words[0]):
            yield "Traceback (most recent call last):"
            yield '  File "work.py", line 1, in <module>'
            yield "RuntimeError: something unforeseen"
            ended = 1
        elif verb == "kill":
            ended = -9
        elif verb == "overdue":
            self.overdue, ended = True, -2
        elif verb == "meet":
            dvc.wait_for(words[0])
        elif verb == "wait":
            while not dvc.go.wait(0.01):
                if self.stopped.is_set():
                    ended = -2
                    break
        if ended is not None:
            self.code = 255
            yield f"ERROR: failed to reproduce '{address}': failed to run: work, exited with {ended}"
        else:
            dvc.made(address)
        dvc.note("end", address)

    def _pull(self):
        for address in self.command.words[3:]:
            if (address, self.dvc.locked.get(address)) in self.dvc.remote and not self.dvc.away:
                self.dvc.here.add(address)
            else:
                self.code = 1
                yield f"ERROR: failed to pull {address}"

    def _push(self):
        if self.dvc.away:
            self.code = 255
            yield "ERROR: failed to push data to the cloud"
        else:
            wanted = self.command.words[4:]
            self.dvc.remote |= {made for made in self.dvc.cache if made[0] in wanted}
