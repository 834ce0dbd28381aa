"""Runs of several processes that torchrun's agents start, a machine each, on this one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.ranks import environment, free_port


@dataclass
class Agents:
    """`nodes` agents with `processes` each; `second` are more options of the last one."""

    arguments: Sequence[str]
    nodes: int = 1
    processes: int = 2
    restarts: int = 0
    second: Sequence[str] = ()
    variables: dict[str, str] = field(default_factory=dict)
    port: int = 0
    """Of the rendezvous; 0: a free one."""
    only: Sequence[int] = ()
    """The agents that are started, of `nodes`; all where none is named."""

    def __enter__(self) -> Agents:
        port = self.port = self.port or free_port()
        self.agents = []
        for node in self.only or range(self.nodes):
            more = self.second if node == self.nodes - 1 else ()
            command = [
                sys.executable, "-m", "torch.distributed.run", f"--nnodes={self.nodes}",
                f"--nproc-per-node={self.processes}", f"--max-restarts={self.restarts}", "--rdzv-backend=c10d",
                f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1", "-m", "dvsn.train", *self.arguments, *more,
            ]  # fmt: skip
            self.agents.append(
                subprocess.Popen(
                    command,
                    env=environment(**self.variables),
                    stderr=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    text=True,
                )
            )
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self.agents:
            agent.send_signal(signal.SIGCONT)
            agent.terminate()
        for agent in self.agents:
            try:
                agent.wait(40)
            except subprocess.TimeoutExpired:
                agent.kill()

    def end(self, timeout: float = 300) -> list[tuple[int, str]]:
        """Exit codes and what was said, by agent."""
        said = [agent.communicate(timeout=timeout)[1] for agent in self.agents]
        return [(int(agent.returncode), text) for agent, text in zip(self.agents, said, strict=True)]

    def workers(self, node: int = 0) -> list[int]:
        """The processes of an agent, by local rank."""
        found = []
        for status in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((status / "stat").read_text().rpartition(")")[2].split()[1])
                variables = (status / "environ").read_bytes().split(b"\0")
            except (OSError, ValueError):
                continue
            rank = [value[11:] for value in variables if value.startswith(b"LOCAL_RANK=")]
            if parent == self.agents[node].pid and rank:
                found.append((int(rank[0]), int(status.name)))
        return [process for _, process in sorted(found)]

    def ranks(self) -> dict[int, tuple[int, int]]:
        """Of each rank the agent and the process: who comes first has rank 0."""
        found = {}
        for node in range(len(self.agents)):
            for each in self.workers(node):
                rank = re.search(rb"\0RANK=(\d+)", Path(f"/proc/{each}/environ").read_bytes())
                assert rank is not None
                found[int(rank.group(1))] = (node, each)
        return found

    def host(self) -> int:
        """The agent that keeps the store."""
        listening = {
            line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and int(line.split()[1].partition(":")[2], 16) == self.port
        } | {
            line.split()[9] for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and int(line.split()[1].partition(":")[2], 16) == self.port
        }  # fmt: skip
        for node, agent in enumerate(self.agents):
            links = [str(each.readlink()) for each in Path(f"/proc/{agent.pid}/fd").iterdir()]
            if any(f"socket:[{each}]" in links for each in listening):
                return node
        raise AssertionError("no agent listens")

    def wait_for(self, file: Path, timeout: float = 240) -> None:
        """Until a file is there, and the agents are too."""
        deadline = time.monotonic() + timeout
        while not file.exists():
            assert time.monotonic() < deadline, f"{file} does not come"
            assert all(agent.poll() is None for agent in self.agents), self.end()
            time.sleep(0.1)


def alive(process: int) -> bool:
    """Whether a process runs, and is not merely waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
