"""A training step on many GPUs, on paper: compute, gradients that are sent while backward goes on, input, stragglers.

    python experiments/scale/simulate.py [KEY=VALUE ...]            what a step takes on 1, 8, 64 and 512 GPUs
    python experiments/scale/simulate.py measure [NETWORK] [SIDE]   measured here against the model: 1, 2, 4 processes

Keys are the fields of `Job`; those of the first command are a PIDNet-S on Cityscapes crops unless they are given.

The model. Backward ends its buckets one after the other, last layers first; a bucket is sent as soon as it is full and the
one before is through. A ring of n sends 2 (n - 1) / n of a bucket's bytes through each link, and takes 2 (n - 1) latencies.
With several machines all-reduces are of two levels: reduce-scatter and all-gather within a machine, and a ring between
machines of the share of each GPU, whose links share those of the machine. A step waits for the slowest process: of n normal
times of deviation s the longest is about s sqrt(2 ln n) above the mean. Input that comes too slowly is waited for.
"""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, fields, replace

MIB = 2**20


@dataclass(frozen=True)
class Job:
    """What a job is and where it runs. Seconds and bytes; bandwidths are of one direction."""

    parameters: float = 7.72e6
    forward: float = 0.030
    """Of one process and step, with the optimiser."""
    backward: float = 0.060
    bucket: float = 25 * MIB
    first: float = 1 * MIB
    """Of the first bucket, which DDP keeps small."""
    bytes_each: float = 4
    """Of a gradient; 2 with trainer.ddp_compress=bf16."""
    local: int = 8
    """GPUs of a machine."""
    inside: float = 350e9
    """Bandwidth of a GPU's links within a machine."""
    between: float = 50e9
    """Bandwidth of a machine to the others, for all its GPUs together."""
    latency: float = 10e-6
    """Of a message within a machine; one between them is `far`."""
    far: float = 20e-6
    spread: float = 0.02
    """Deviation of the compute time of a process, as a share."""
    batch: float = 12
    """Of one process."""
    sample: float = 2.3e6
    """Bytes that are read of one, as they lie on the disk."""
    reading: float = 2e9
    """Bandwidth of input for a machine."""
    overlap: float = 1.0
    """Share of sending that goes on beside backward: 1 of GPUs with a copy engine, 0 where one core does both."""


@dataclass(frozen=True)
class Step:
    """Seconds of a step: `total`, of which it waits for gradients, for the slowest process and for input."""

    total: float
    exposed: float
    straggling: float
    starving: float
    sent: float
    """Bytes of gradients that leave a GPU."""
    read: float
    """Bytes of input a second and GPU, where nothing waits."""


def ring(size: float, n: int, bandwidth: float, latency: float) -> float:
    """Seconds of an all-reduce of so many bytes over a ring of n."""
    return 0.0 if n < 2 else 2 * (n - 1) * (size / n / bandwidth + latency)


def all_reduce(size: float, gpus: int, job: Job) -> float:
    """Seconds of an all-reduce: a ring within a machine, or of two levels."""
    if gpus <= job.local:
        return ring(size, gpus, job.inside, job.latency)
    within = ring(size, job.local, job.inside, job.latency)
    return within + ring(size, gpus // job.local, job.between, job.far)


def buckets(job: Job) -> list[float]:
    """Bytes of each bucket in the order in which they are sent."""
    left, sizes = job.parameters * job.bytes_each, []
    while left > 0:
        sizes.append(min(left, job.bucket if sizes else job.first))
        left -= sizes[-1]
    return sizes


def exposed(gpus: int, job: Job) -> float:
    """Seconds that a step waits for gradients after backward has ended."""
    sizes, clock, ready = buckets(job), 0.0, 0.0
    if gpus < 2:
        return 0.0
    total = sum(sizes)
    for size in sizes:
        ready += job.backward * size / total  # gradients come evenly
        clock = max(clock, ready) + all_reduce(size, gpus, job)
    alone = sum(all_reduce(size, gpus, job) for size in sizes)
    return job.overlap * (clock - job.backward) + (1 - job.overlap) * alone


def step(gpus: int, job: Job) -> Step:
    """A step of so many GPUs, each with the same batch."""
    compute = job.forward + job.backward
    waited = job.spread * compute * math.sqrt(2 * math.log(gpus)) if gpus > 1 else 0.0
    late = exposed(gpus, job)
    busy = compute + late + waited
    here = min(gpus, job.local)
    input_time = here * job.batch * job.sample / job.reading
    size = job.parameters * job.bytes_each
    return Step(
        total=max(busy, input_time),
        exposed=late,
        straggling=waited,
        starving=max(0.0, input_time - busy),
        sent=2 * (gpus - 1) / gpus * size,
        read=job.batch * job.sample / busy,
    )


def table(job: Job, counts: tuple[int, ...] = (1, 8, 64, 512)) -> list[str]:
    """The rows that the docs show."""
    lines = [
        "| GPUs | step, ms | gradients | slowest | input | scaling | MB/s a GPU |",
        "|---|---|---|---|---|---|---|",
    ]
    alone = step(1, job).total
    for count in counts:
        each = step(count, job)
        parts = (each.total, each.exposed, each.straggling, each.starving)
        ms = " | ".join(f"{1000 * value:.1f}" for value in parts)
        lines.append(f"| {count} | {ms} | {alone / each.total:.0%} | {each.read / 1e6:.0f} |")
    return lines


def parsed(words: list[str]) -> Job:
    """A job by KEY=VALUE."""
    kinds = {each.name: int if each.name == "local" else float for each in fields(Job)}
    given = dict(word.split("=", 1) for word in words)
    if unknown := sorted(set(given) - set(kinds)):
        raise SystemExit(f"{unknown[0]}: there is no such key, expected one of {', '.join(kinds)}")
    return replace(Job(), **{key: kinds[key](value) for key, value in given.items()})


# Against this machine --------------------------------------------------------------------------------


def measure(network: str = "pidnet_s", side: str = "128") -> None:
    """Measure a step of 1, 2 and 4 gloo processes, and an all-reduce of two; print the model's answer beside each.

    What the model is given is measured: the time of a step alone, and bandwidth and latency of two processes. Where there
    are more processes than cores compute is that many times longer; and since sending takes the cores, it does not overlap.
    """
    import json
    import os
    from pathlib import Path

    script, found = Path(__file__).with_name("measured_step.py"), {}
    for count in (1, 2, 4):
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        done = subprocess.run([*line, str(script), network, side], capture_output=True, text=True, check=True)
        found[count] = json.loads(done.stdout.strip().splitlines()[-1])
    two, cores = found[2], os.cpu_count() or 1
    job = Job(
        parameters=found[1]["parameters"],
        forward=found[1]["forward"],
        backward=found[1]["backward"],
        inside=two["bandwidth"],
        latency=two["latency"],
        local=cores,
        spread=0,
        sample=0,
        overlap=0,
    )
    print(f"{job.parameters:,.0f} parameters; two processes: {two['bandwidth'] / 1e9:.2f} GB/s, "
          f"{1e6 * two['latency']:.0f} us a message; load {os.getloadavg()[0]:.1f} on {cores} cores")  # fmt: skip
    print(
        "| processes | measured, ms | model, ms | error | all-reduce, ms | model, ms |\n|---|---|---|---|---|---|"
    )
    for count, each in found.items():
        crowd = max(1.0, count / cores)
        own = replace(
            job,
            local=count,
            forward=crowd * job.forward,
            backward=crowd * job.backward,
            inside=job.inside / crowd,
        )
        expected, took = step(count, own).total, each["forward"] + each["backward"]
        sent = all_reduce(own.parameters * own.bytes_each, count, own)
        print(
            f"| {count} | {1000 * took:.1f} | {1000 * expected:.1f} | {expected / took - 1:+.0%} "
            f"| {1000 * each['all_reduce']:.1f} | {1000 * sent:.1f} |"
        )


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["measure"]:
        measure(*words[1:3])
    else:
        print("\n".join(table(parsed(words))))


if __name__ == "__main__":
    main()
