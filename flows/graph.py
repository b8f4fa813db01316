"""The stage graph of dvc.yaml as DVC reads it: its stages, the requested ones, and those that have to run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import networkx
from dvc.exceptions import DvcException
from dvc.fs import localfs
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo

from vadcore.utils.errors import VadError

CLEAN, MISSING, CHANGED = "clean", "missing", "changed"
GONE = {"deleted", "not in cache"}  # how DVC reports files that were made on another machine


@dataclass(frozen=True)
class Node:
    """A stage.

    Attributes
    ----------
    address: DVC's name, ``train@street-gru_ae``.
    kind: its name in dvc.yaml, ``train``.
    axes: its values in the matrix, ``{"dataset": "street", "model": "gru_ae"}``.
    upstream: addresses of the stages that it depends on.
    """

    address: str
    kind: str
    axes: Mapping[str, str] = field(default_factory=dict)
    upstream: tuple[str, ...] = ()


class Graph:
    """The stages of the project in ``root``, in an order in which they can run.

    Raises VadError if DVC cannot read the project.
    """

    def __init__(self, root: Path):
        try:
            self._repo = Repo(str(root), _wait_for_lock=True)
            graph = self._repo.index.graph  # edges point from a stage to its dependencies
            self.nodes = {}
            for stage in networkx.dfs_postorder_nodes(graph):
                address, upstream = _address(stage), tuple(sorted(map(_address, graph.successors(stage))))
                self.nodes[address] = Node(address, address.partition("@")[0], _axes(stage), upstream)
        except DvcException as error:
            raise VadError(f"{root}: {_one_line(error)}") from error

    @property
    def remote(self) -> str | None:
        """Name of the default DVC remote; None if there is none."""
        return self._repo.config["core"].get("remote")

    def states(self) -> dict[str, str]:
        """Return the state of every stage, from the checks of ``dvc status``.

        - ``clean``: equal to dvc.lock.
        - ``missing``: equal to dvc.lock, but some files are missing here because another machine made them.
        - ``changed``: has to run, or another DVC process is using its files.

        Reads dvc.yaml, params.yaml and dvc.lock as they are now; waits for DVC's lock.
        """
        states = dict.fromkeys(self.nodes, CHANGED)
        try:
            with lock_repo(self._repo):
                made = [out.fs_path for out in self._repo.index.outs]
                for stage in self._repo.index.stages:
                    with suppress(LockError):
                        states[_address(stage)] = _state(stage, made)
        except DvcException as error:
            raise VadError(f"{self._repo.root_dir}: {_one_line(error)}") from error
        return states

    def select(
        self, datasets: Collection[str] = (), models: Collection[str] = (), targets: Collection[str] = ()
    ) -> tuple[set[str], set[str]]:
        """Return the addresses of the requested stages and of the stages downstream of them.

        The requested stages are those of ``datasets`` and ``models`` (all if none is named) and everything they depend on.
        ``targets`` are addresses or names of stages in dvc.yaml; with targets, the second set is empty. Raises VadError for
        an unknown name.
        """
        wanted = {"dataset": set(datasets), "model": set(models)}
        wanted = {axis: names for axis, names in wanted.items() if names}
        for axis, names in wanted.items():
            known = {node.axes[axis] for node in self.nodes.values() if axis in node.axes}
            _known(names, known, f"no stage has the {axis} {{}}; there are: {{}}")
        kinds = {node.kind for node in self.nodes.values()}
        _known(targets, {*self.nodes, *kinds}, f"dvc.yaml has no stage {{}}; there are: {', '.join(sorted(kinds))}")
        chosen = {
            node.address
            for node in self.nodes.values()
            if all(node.axes.get(axis) in names for axis, names in wanted.items())
            and (not targets or {node.address, node.kind} & set(targets))
        }
        if not chosen:
            raise VadError("no stage matches all given names; list the stages with: dvc stage list")
        needed = chosen.union(*(self.ancestors(address) for address in chosen))
        after = set() if targets else self._and_downstream(chosen) - needed
        return needed, after

    def running(self, chosen: Collection[str], changed: Iterable[str]) -> set[str]:
        """Return those of ``chosen`` that may have to run: the ``changed`` ones and everything downstream of them."""
        return self._and_downstream(set(changed) & set(chosen)) & set(chosen)

    def downstream(self, address: str) -> set[str]:
        return networkx.ancestors(self._edges, address)

    def ancestors(self, address: str) -> set[str]:
        return networkx.descendants(self._edges, address)

    def _and_downstream(self, addresses: set[str]) -> set[str]:
        return addresses.union(*map(self.downstream, addresses))

    @cached_property
    def _edges(self) -> networkx.DiGraph:
        """Edges point from a stage to its dependencies, as in DVC."""
        graph = networkx.DiGraph((node.address, needed) for node in self.nodes.values() for needed in node.upstream)
        graph.add_nodes_from(self.nodes)
        return graph


def _address(stage) -> str:
    """Return the address of a stage relative to the project folder; ``stage.addressing`` is relative to the current one."""
    return getattr(stage, "name", None) or stage.path_in_repo


def _axes(stage) -> dict[str, str]:
    """Return the matrix values of a stage. The name alone, ``a-b-c``, does not tell where one value ends."""
    kind, _, key = _address(stage).partition("@")
    if not key:
        return {}
    values = getattr(stage.dvcfile.resolver.definitions[kind], "normalized_iterable", {}).get(key, {})
    return {axis: str(value) for axis, value in values.items()}


def _state(stage, made: list[str]) -> str:
    """Return the state of a stage. ``made``: paths of the outs of all stages."""
    changes = next(iter(stage.status().values()), [])
    if not all(isinstance(change, dict) for change in changes):  # the command has changed or always runs
        return CHANGED
    outs = next((change["changed outs"] for change in changes if "changed outs" in change), {})
    deps = next((change["changed deps"] for change in changes if "changed deps" in change), {})
    if not all(isinstance(said, str) and said in GONE for said in (*outs.values(), *deps.values())):
        return CHANGED
    if deps and not all(dep.exists or any(localfs.overlaps(dep.fs_path, path) for path in made) for dep in stage.deps):
        return CHANGED  # a file is missing that no stage makes
    return MISSING if outs else CLEAN


def _known(names: Collection[str], known: Collection[str], message: str) -> None:
    for name in names:
        if name not in known:
            raise VadError(message.format(name, ", ".join(sorted(known)) or "none"))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
