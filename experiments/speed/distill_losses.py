"""What each loss of distillation costs, against the published order of operations, forward and backward.

    OMP_NUM_THREADS=1 python experiments/speed/distill_losses.py > experiments/speed/distill_losses.md

Shapes are those of the benchmark, resnet32x4 -> resnet8x4 on CIFAR-100, batch 64; for segmentation features of
128 channels at 1/8 of 512x1024, 19 classes, batch 4. Processor time of one thread; both take turns, in rounds; the median
is shown. Memory is what PyTorch allocates at the peak above what was held before, in a run of its own. Needs 4 GiB and some
minutes. `rounds=`, `batch=` and `only=nst,rkd` can be given.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from dvsn.benchmark.stopwatch import highest
from dvsn.distill.ab import ActivationBoundaries
from dvsn.distill.at import AttentionTransfer
from dvsn.distill.cc import CorrelationCongruence
from dvsn.distill.crd import ContrastiveRepresentation, scores
from dvsn.distill.dkd import DecoupledDistillation
from dvsn.distill.fitnet import FitNet
from dvsn.distill.fsp import SolutionFlow
from dvsn.distill.ft import FactorTransfer
from dvsn.distill.ifvd import IntraClassVariation
from dvsn.distill.kd import KnowledgeDistillation
from dvsn.distill.method import Facts, Kind, Side, View
from dvsn.distill.nst import NeuronSelectivity
from dvsn.distill.ofd import FeatureOverhaul
from dvsn.distill.pkt import ProbabilisticTransfer
from dvsn.distill.rkd import RelationalDistillation
from dvsn.distill.skd import StructuredDistillation
from dvsn.distill.sp import SimilarityPreserving
from dvsn.distill.vid import VariationalInformation

SETTINGS = {"rounds": "5", "batch": "64", "only": ""}
STEM, STAGES, POOLED = (32, 32, 32), [(64, 32, 32), (128, 16, 16), (256, 8, 8)], (256,)
DENSE = (128, 64, 128)
SAMPLES, NEGATIVES = 50_000, 16_384


class Case(NamedTuple):
    method: Any
    taps: list[tuple[int, ...]]
    published: Callable[[Any, View, View, dict[str, Any]], Tensor]
    goal: str = "at least as fast"
    step: str = "forward"
    kind: Kind = "classes"
    output: tuple[int, ...] = (100,)


def pairs(student: View, teacher: View) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(student.features, teacher.features, strict=True)


def kd(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    guess, truth = F.log_softmax(student.output / 4, dim=1), F.softmax(teacher.output / 4, dim=1)
    return F.kl_div(guess, truth, reduction="sum") * 16 / len(guess)


def fitnet(method: Any, student: View, teacher: View, _: Any) -> Tensor:
    layers = method.regressors[0]
    return F.mse_loss(F.relu(layers.bn(layers.conv(student.features[1]))), teacher.features[1])


def at(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    def maps(f: Tensor) -> Tensor:
        return F.normalize(f.pow(2).mean(1).reshape(len(f), -1))

    return sum(((maps(s) - maps(t)).pow(2).mean() for s, t in pairs(student, teacher)), torch.zeros(()))


def sp(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    total = torch.zeros(())
    for s, t in pairs(student, teacher):
        s, t = s.reshape(len(s), -1), t.reshape(len(t), -1)
        difference = F.normalize(t @ t.t()) - F.normalize(s @ s.t())
        total = total + (difference * difference).sum() / len(s) ** 2
    return total


def cc(method: Any, student: View, teacher: View, _: Any) -> Tensor:
    apart = (method.embed_s[0](student.features[0]) - method.embed_t[0](teacher.features[0])).abs()
    return (apart[:-1] * apart[1:]).sum(1).mean()


def vid(method: Any, student: View, teacher: View, _: Any) -> Tensor:
    total = torch.zeros(())
    for tap, (s, t) in zip(method.taps, pairs(student, teacher), strict=True):
        variance = torch.log(1 + torch.exp(tap.log_scale)) + 1e-5
        variance = variance.view(1, -1, 1, 1)
        total = total + torch.mean(0.5 * ((tap.regressor(s) - t) ** 2 / variance + torch.log(variance)))
    return total


def distances(x: Tensor) -> Tensor:
    square = x.pow(2).sum(dim=1)
    result = (square.unsqueeze(1) + square.unsqueeze(0) - 2 * (x @ x.t())).clamp(min=1e-12).sqrt().clone()
    result[range(len(x)), range(len(x))] = 0
    return result


def rkd(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    s, t = student.features[0], teacher.features[0]
    with torch.no_grad():
        d_t = distances(t)
        d_t = d_t / d_t[d_t > 0].mean()
        apart = F.normalize(t.unsqueeze(0) - t.unsqueeze(1), p=2, dim=2)
        angle_t = torch.bmm(apart, apart.transpose(1, 2)).view(-1)
    d_s = distances(s)
    d_s = d_s / d_s[d_s > 0].mean()
    apart = F.normalize(s.unsqueeze(0) - s.unsqueeze(1), p=2, dim=2)
    angle_s = torch.bmm(apart, apart.transpose(1, 2)).view(-1)
    return 25 * F.smooth_l1_loss(d_s, d_t) + 50 * F.smooth_l1_loss(angle_s, angle_t)


def pkt(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    def neighbours(x: Tensor) -> Tensor:
        x = x / (torch.sqrt(torch.sum(x**2, dim=1, keepdim=True)) + 1e-7)
        close = (torch.mm(x, x.transpose(0, 1)) + 1.0) / 2.0
        return close / torch.sum(close, dim=1, keepdim=True)

    p_s, p_t = neighbours(student.features[0]), neighbours(teacher.features[0])
    return torch.mean(p_t * torch.log((p_t + 1e-7) / (p_s + 1e-7)))


def nst(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(1) * b.unsqueeze(2)).sum(-1).pow(2)

    total = torch.zeros(())
    for s, t in pairs(student, teacher):
        s, t = (F.normalize(f.reshape(*f.shape[:2], -1), dim=2) for f in (s, t))
        total = total + kernel(t, t).mean().detach() + kernel(s, s).mean() - 2 * kernel(s, t).mean()
    return total


def fsp(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    def flow(first: Tensor, second: Tensor) -> Tensor:
        side = second.shape[2]
        first = F.adaptive_avg_pool2d(first, (side, side)) if first.shape[2] > side else first
        first, second = first.unsqueeze(1), second.unsqueeze(2)
        return (first.reshape(*first.shape[:3], -1) * second.reshape(*second.shape[:3], -1)).mean(-1)

    flows = [[flow(a, b) for a, b in itertools.pairwise(view.features)] for view in (student, teacher)]
    return sum(((s - t).pow(2).mean() for s, t in zip(*flows, strict=True)), torch.zeros(()))


def ab(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    total = torch.zeros(())
    for number, (s, t) in enumerate(pairs(student, teacher)):
        loss = (s + 1).pow(2) * ((s > -1) & (t <= 0)).float() + (s - 1).pow(2) * ((s <= 1) & (t > 0)).float()
        total = total + loss.abs().sum() / len(s) * 2.0 ** (number - 2)
    return total * 3 / 1000


def ft(method: Any, student: View, teacher: View, _: Any) -> Tensor:
    def factor(f: Tensor) -> Tensor:
        return F.normalize(f.pow(2).mean(1).reshape(len(f), -1))

    with torch.no_grad():
        truth = method.paraphrasers[0].encoder(teacher.features[0])
    return (factor(method.translators[0].encoder(student.features[0])) - factor(truth)).abs().mean()


def ofd(method: Any, student: View, teacher: View, _: Any) -> Tensor:
    total = torch.zeros(())
    for number, (connector, (s, t)) in enumerate(
        zip(method.connectors, pairs(student, teacher), strict=True)
    ):
        t = torch.max(t, getattr(method, f"margin_{number}").float().view(1, -1, 1, 1))
        s = connector(s)
        loss = F.mse_loss(s, t, reduction="none") * ((s > t) | (t > 0)).float()
        total = total + loss.sum() / 2 ** (2 - number)
    return total / len(student.output) / 1000


def normal(x: Tensor) -> Tensor:
    return x.div(x.pow(2).sum(1, keepdim=True).pow(0.5))


def gathered(bank: Tensor, items: Tensor, v: Tensor) -> Tensor:
    rows = torch.index_select(bank, 0, items.view(-1)).detach().view(len(v), -1, v.shape[1])
    return torch.bmm(rows, v.view(len(v), -1, 1))


def crd(method: Any, student: View, teacher: View, batch: dict[str, Any]) -> Tensor:
    banks, items, constant = method.contrast, batch["items"], NEGATIVES / SAMPLES
    v1, v2 = normal(method.embed_s(student.features[0])), normal(method.embed_t(teacher.features[0]))
    total = torch.zeros(())
    for v, bank, z in ((v1, banks.memory_v2, banks.params[2]), (v2, banks.memory_v1, banks.params[3])):
        p = torch.exp(torch.div(gathered(bank, items, v), 0.07)) / z
        first, others = p.select(1, 0), p.narrow(1, 1, NEGATIVES)
        log_first = torch.div(first, first.add(constant + 1e-7)).log_()
        log_others = torch.div(others.clone().fill_(constant), others.add(constant + 1e-7)).log_()
        total = total - (log_first.sum(0) + log_others.view(-1, 1).sum(0)).squeeze() / len(v)
    return total


def dkd(_: Any, student: View, teacher: View, batch: dict[str, Any]) -> Tensor:
    right = torch.zeros_like(student.output).scatter_(1, batch["target"].unsqueeze(1), 1).bool()
    p_s, p_t = F.softmax(student.output / 4, dim=1), F.softmax(teacher.output / 4, dim=1)
    both = [
        torch.cat([(p * right).sum(1, keepdim=True), (p * ~right).sum(1, keepdim=True)], dim=1)
        for p in (p_s, p_t)
    ]
    first = F.kl_div(both[0].log(), both[1], reduction="sum") * 16 / len(p_s)
    rest_t = F.softmax(teacher.output / 4 - 1000.0 * right, dim=1)
    rest_s = F.log_softmax(student.output / 4 - 1000.0 * right, dim=1)
    return first + 8 * F.kl_div(rest_s, rest_t, reduction="sum") * 16 / len(p_s)


def ifvd(_: Any, student: View, teacher: View, batch: dict[str, Any]) -> Tensor:
    s, t = student.features[0], teacher.features[0]
    target = F.interpolate(batch["target"].unsqueeze(1).float(), size=s.shape[2:], mode="nearest")
    target_s, target_t = target.expand(s.size()), target.expand(t.size())
    centre_s, centre_t = s.clone(), t.clone()
    for i in range(student.output.shape[1]):
        mask_s, mask_t = (target_s == i).float(), (target_t == i).float()
        for f, mask, centre in ((s, mask_s, "s"), (t, mask_t, "t")):
            mean = (mask * f).sum(-1).sum(-1) / (mask.sum(-1).sum(-1) + 1e-6)
            if centre == "s":
                centre_s = (1 - mask) * centre_s + mask * mean.unsqueeze(-1).unsqueeze(-1)
            else:
                centre_t = (1 - mask) * centre_t + mask * mean.unsqueeze(-1).unsqueeze(-1)
    cosine = torch.nn.CosineSimilarity(dim=1)
    return F.mse_loss(cosine(s, centre_s), cosine(t, centre_t))


def skd(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    pixel = F.kl_div(student.output.log_softmax(1), teacher.output.softmax(1), reduction="none").sum(1).mean()
    matrices = []
    for f in (student.features[0], teacher.features[0]):
        kernel = (int(f.shape[2] * SCALE), int(f.shape[3] * SCALE))
        x = F.max_pool2d(f, kernel_size=kernel, stride=kernel, padding=0, ceil_mode=True)
        x = (x / ((x**2).sum(1, keepdim=True).sqrt() + 1e-8)).reshape(*x.shape[:2], -1)
        matrices.append(torch.einsum("icm,icn->imn", x, x))
    return pixel + (((matrices[1] - matrices[0]) ** 2) / matrices[0].shape[-1] ** 2 / len(matrices[0])).sum()


SCALE = 1 / 32  # 2 x 4 pixels a region
CASES = {
    "kd": Case(KnowledgeDistillation, [], kd),
    "fitnet": Case(FitNet, STAGES, fitnet),
    "at": Case(AttentionTransfer, STAGES, at),
    "sp": Case(SimilarityPreserving, STAGES[-1:], sp),
    "cc, adjacent": Case(lambda **o: CorrelationCongruence(form="adjacent", **o), [POOLED], cc),
    "vid": Case(VariationalInformation, STAGES, vid),
    "rkd": Case(RelationalDistillation, [POOLED], rkd, "5 times as fast"),
    "pkt": Case(ProbabilisticTransfer, [POOLED], pkt),
    "ab": Case(ActivationBoundaries, STAGES, ab, step="initial"),
    "ft, attention": Case(lambda **o: FactorTransfer(factor="attention", **o), STAGES[-1:], ft),
    "fsp, average": Case(
        lambda **o: SolutionFlow(pool="average", **o), [STEM, *STAGES], fsp, "10 times as fast", "initial"
    ),
    "nst": Case(NeuronSelectivity, STAGES, nst, "20 times as fast, 1/20 of the memory"),
    "crd": Case(
        lambda **o: ContrastiveRepresentation(facts=Facts(SAMPLES), negatives=NEGATIVES, **o), [POOLED], crd
    ),
    "ofd": Case(FeatureOverhaul, STAGES, ofd),
    "dkd": Case(DecoupledDistillation, [], dkd),
    "ifvd": Case(IntraClassVariation, [DENSE], ifvd, "5 times as fast", "forward", "pixels", (19, 64, 128)),
    "skd": Case(
        lambda **o: StructuredDistillation(pixel_weight=1.0, scale=SCALE, **o), [DENSE], skd, "at least as fast",
        "forward", "pixels", (19, 64, 128),
    ),
}  # fmt: skip


class Bench:
    """A method and its published order on the same tensors."""

    def __init__(self, name: str, case: Case, batch: int) -> None:
        torch.manual_seed(0)
        batch = 4 if case.kind == "pixels" else batch
        norms = tuple(torch.nn.BatchNorm2d(shape[0]) for shape in case.taps if len(shape) == 3)
        side = Side(case.kind, case.output, tuple(case.taps), norms)
        self.case = case
        self.method = case.method(student=side, teacher=side)
        # maps behind a ReLU, those before it for losses on what is there
        floor = -1e9 if name in ("ab", "ofd") else 0.0
        views = [
            [
                torch.randn(batch, *case.output),
                *(torch.randn(batch, *tap).clamp_min(floor) for tap in case.taps),
            ]
            for _ in range(2)
        ]
        self.teacher = View(views[1][0], tuple(views[1][1:]))
        self.student = View(
            views[0][0].requires_grad_(), tuple(each.requires_grad_() for each in views[0][1:])
        )
        if case.kind == "pixels":
            blobs = torch.randint(0, 19, (batch, 1, 16, 32)).float()
            target = F.interpolate(blobs, size=(512, 1024), mode="nearest")[:, 0].long()
            target[:, -50:] = 255
        else:
            target = torch.randint(0, 100, (batch,))
        self.batch = {"target": target, "index": torch.randint(0, SAMPLES, (batch,))}
        if name == "crd":
            items = self.method.draw(self.batch["index"])
            self.batch["items"] = items
            self.method.draw = lambda _: items  # both meet the same negatives
            self.dvsn()  # fixes Z

    def dvsn(self) -> Tensor:
        terms = getattr(self.method, self.case.step)(self.student, self.teacher, self.batch)
        return functools.reduce(torch.add, terms.values())

    def published(self) -> Tensor:
        return self.case.published(self.method, self.student, self.teacher, self.batch)


def timed(run: Callable[[], Tensor]) -> tuple[float, float]:
    """Milliseconds, forward and backward, and the value."""
    start = time.process_time()
    value = run()
    value.backward()
    return 1e3 * (time.process_time() - start), float(value.detach())


def peak(run: Callable[[], Tensor]) -> float:
    """MiB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run().backward()
    events = found.profiler.kineto_results.events()  # type: ignore[union-attr]
    return highest([event.nbytes() for event in events if event.name() == "[memory]"]) / 2**20


def row(name: str, goal: str, runs: dict[str, Callable[[], Tensor]], rounds: int) -> str:
    first = {key: timed(run) for key, run in runs.items()}
    longest = max(taken for taken, _ in first.values())
    count = 1 if longest > 3000 else 4 * rounds if longest < 50 else rounds
    times: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(count):
        for key, run in runs.items():
            again = longest < 3000 or first[key][0] < 300
            times[key].append(timed(run)[0] if again else first[key][0])
    ms = {key: statistics.median(each) for key, each in times.items()}
    mib = {key: peak(run) for key, run in runs.items()}
    error = abs(first["dvsn"][1] / first["published"][1] - 1)
    cells = [
        name, f"{ms['published']:.2f}", f"{ms['dvsn']:.2f}", f"{ms['published'] / ms['dvsn']:.2f}",
        f"{mib['published']:.1f}", f"{mib['dvsn']:.1f}", f"{mib['published'] / mib['dvsn']:.2f}", f"{error:.0e}", goal,
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def score_runs(bench: Bench) -> dict[str, Callable[[], Tensor]]:
    """CRD's scores of one bank alone."""
    bank, items = bench.method.contrast.memory_v2, bench.batch["items"]
    v = F.normalize(torch.randn(len(items), 128)).requires_grad_()
    return {
        "published": lambda: gathered(bank, items, v).square().sum(),
        "dvsn": lambda: scores(v, bank, items).square().sum(),
    }


def main() -> None:
    settings = SETTINGS | dict(argument.split("=") for argument in sys.argv[1:])
    torch.set_num_threads(1)
    rounds, only = int(settings["rounds"]), [name for name in settings["only"].split(",") if name]
    print("# What each loss of distillation costs\n")
    command = " ".join(["python experiments/speed/distill_losses.py", *sys.argv[1:]])
    print(f"`{command}`, {datetime.date.today()}\n")
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(
        f"{platform.machine()} CPU, one thread, processor time; {load}; torch {torch.__version__}, float32.\n"
    )
    print(
        f"Forward and backward, batch {settings['batch']} (ifvd, skd: 4); median of {rounds} rounds, of {4 * rounds}"
    )
    print("below 50 ms, a single one above 3 s; the first run is not counted where there are more.\n")
    print("| loss | published, ms | dvsn, ms | times as fast | published, MiB | dvsn, MiB | ratio |", end=" ")
    print("values differ by | goal |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, case in CASES.items():
        if only and name.split(",")[0] not in only:
            continue
        bench = Bench(name, case, int(settings["batch"]))
        runs: dict[str, Callable[[], Tensor]] = {"published": bench.published, "dvsn": bench.dvsn}
        print(row(name, case.goal, runs, rounds), flush=True)
        if name == "crd":
            print(row("crd, scores", "5 times as fast", score_runs(bench), rounds), flush=True)


if __name__ == "__main__":
    main()
