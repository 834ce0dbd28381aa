"""The form in which each teacher runs (eager, folded, channels_last, compiled, onnx): the one asked for, or
the fastest by a short measurement."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvsn.distill import taps
from dvsn.distill.deployed import ENGINES, Deployed
from dvsn.distill.taps import first_tensor
from dvsn.distill.teacher import Teacher
from dvsn.engine.devices import device_count, resolve_precision, uses_cuda
from dvsn.engine.trainer import in_channels_last
from dvsn.errors import ConfigError
from dvsn.networks.folding import relative_error
from dvsn.networks.onnx_form import has_onnxruntime

Config = dict[str, Any]

TOLERANCE = 1e-5
"""The largest difference from the network as it was built, as a share of the largest number of an answer or a map."""
SECONDS = 1.0
"""How long a measurement takes, where two passes of each form do not take longer."""
ROUNDS = (2, 9)
"""The fewest and most passes of each form."""
WORTH = 0.97
"""Of the time of a simpler form that another must take, or less, to be chosen instead."""


class Unfit(Exception):
    """A teacher cannot run in a form. The message is the reason, for the log."""


class Case(NamedTuple):
    """A teacher with its taps, its input for one sample, and the batch size of the run."""

    teacher: Teacher
    shown: Tensor
    batch_size: int
    config: Config


class Asked(NamedTuple):
    """One pass of the unchanged teacher: the input of its network, its output and the tapped tensors."""

    given: Tensor
    read: dict[str, Tensor]


def deploy(
    teachers: Sequence[Teacher],
    paths: Sequence[str],
    shown: Tensor,
    config: Config,
    *,
    batch_size: int,
    ran: Sequence[str] | None = None,
) -> list[tuple[str, str]]:
    """Give each teacher its taps `paths` and the form of `distillation.engine`. Returns lines for the log.

    `shown` (1, ...) is what teachers see of one sample; `ran` are the forms of the run that is continued, which are taken
    again; a run of an earlier version has had none. A teacher that cannot teach in a form does so as it was built, and the
    line says why. Raises `ConfigError` where ONNX Runtime is asked for and not installed.
    """
    wanted = str((config.get("distillation") or {}).get("engine") or "folded")
    trainer = config["trainer"]
    if trainer.get("strategy") == "fsdp" and trainer.get("fsdp_teacher", "sharded") == "sharded":
        wanted, ran = "eager", None  # another form is a copy, beside which the network would stay whole
    notes = []
    for number, teacher in enumerate(teachers):
        teacher.listen(paths)
        engine = wanted if ran is None else ran[number] if number < len(ran) else "eager"
        if engine == "onnx" and not has_onnxruntime():
            raise ConfigError(
                "distillation.engine: onnx needs ONNX Runtime, which is not installed. pip install 'dvsn[onnx]'"
            )
        if engine == "eager" or teacher.moves:
            continue
        if in_channels_last(config):
            teacher.to_channels_last()
        case = Case(teacher, shown, batch_size, config)
        try:
            if engine == "auto":
                text = choose(case)
            else:
                form = fitting(case, engine, settled=ran is not None)
                teacher.deploy(form)
                text = f"{engine}: {told(form)}"
        except Unfit as reason:
            text = f"eager, not {engine}: {reason}"
        notes.append(("teacher", text))
    return notes


def ask_once(case: Case) -> Asked:
    """One pass of the teacher as it was built. Raises `Unfit` where another form could not answer the same."""
    teacher, given = case.teacher, list[tuple[Any, ...]]()
    if not getattr(teacher.holder, "answers_alone", True):
        raise Unfit("it is tested with dropout or by the statistics of a batch")
    if str(case.config["trainer"].get("precision")).startswith("16"):
        raise Unfit("folded weights may leave the range of float16")
    handle = teacher.network.register_forward_pre_hook(
        lambda _, positional, named: given.append((*positional, *named.values())), with_kwargs=True
    )
    try:
        read = reading(teacher, case.shown)
    finally:
        handle.remove()
    if len(given) != 1 or len(given[0]) != 1:
        raise Unfit("its network is not asked as a whole, once and with one picture")
    (image,) = given[0]
    if not isinstance(image, Tensor) or image.ndim != 4 or image.dtype != torch.float32:
        raise Unfit("its network is given something else than pictures in float32")
    return Asked(image, read)


def reading(teacher: Teacher, shown: Tensor) -> dict[str, Tensor]:
    """The output and the tapped tensors of one pass. Buffers, random state and mode stay as they were."""
    with taps.undisturbed(teacher.taught_by):
        teacher.taps.install()
        try:
            with teacher.taps, teacher.standing_in():
                answer = first_tensor(teacher.ask(shown))
            read = teacher.taps.take()
        finally:
            teacher.taps.remove()
    return read if answer is None else {**read, "": answer}


def fitting(case: Case, engine: str, *, settled: bool = False) -> Deployed:
    """The teacher in this form, after its outputs were compared with those of the unchanged one: for one sample,
    with ONNX Runtime for a batch of it. A form that is `settled`, since the run has had it, is taken as it answers. Raises
    `Unfit`."""
    teacher = case.teacher
    if engine == "onnx" and teacher.taps.paths:
        raise Unfit("methods read its maps, and ONNX Runtime gives the answer alone")
    if engine == "onnx" and uses_cuda(case.config["trainer"]):
        raise Unfit("ONNX Runtime is asked on the CPU, and the run is on a GPU")
    if engine == "onnx":
        case = case._replace(shown=repeated(case.shown, case.batch_size))
    asked = ask_once(case)
    plain = (
        "channels_last" if engine == "compiled" else engine
    )  # compiled by the first step, which has the run's hooks
    try:
        form = Deployed(teacher.network, plain, asked.given, teacher.taps.paths)
        teacher.deploy(form)
        read = reading(teacher, case.shown)
    except Exception as error:  # whatever a network of others does when it is copied, traced or exported
        raise Unfit(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}") from error
    finally:
        teacher.deploy(None)
    if engine == "folded" and not form.norms:
        raise Unfit("no batch norm stands behind a convolution of its own")
    if any(read[name].shape != value.shape for name, value in asked.read.items()):
        raise Unfit("its answer has another shape then")
    apart = max((relative_error(read[name], value) for name, value in asked.read.items()), default=0.0)
    if not apart <= TOLERANCE and not settled:
        raise Unfit(f"its answer differs by {apart:.0e} then, more than {TOLERANCE:.0e}")
    return Deployed(teacher.network, engine, asked.given, teacher.taps.paths) if plain != engine else form


def choose(case: Case) -> str:
    """Give the teacher the fastest form for a batch, the simpler of two that are alike. Returns the line for
    the log."""
    teacher = case.teacher
    if device_count(case.config["trainer"]) > 1:
        teacher.deploy(fitting(case, "folded"))
        return "folded: auto does not measure where several processes must agree"
    ask_once(case)
    forms: dict[str, Deployed | None] = {"eager": None}
    left_out: list[str] = []
    for engine in candidates(case):
        try:
            forms[engine] = fitting(case, engine)
        except Unfit as reason:
            left_out.append(f"{engine}: {reason}")
    taken = measure(case, forms)
    best = min(taken.values())
    chosen = next(name for name in forms if taken[name] * WORTH <= best)
    teacher.deploy(fitting(case, chosen) if chosen == "compiled" else forms[chosen])
    figures = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in taken.items())
    words = f"{chosen}: auto, milliseconds for a batch of {case.batch_size}: {figures}"
    return "; ".join([words, *left_out])


def candidates(case: Case) -> list[str]:
    """What `auto` tries: ONNX Runtime where it is installed and the answer alone is read; torch.compile, which
    takes longer to compile than `auto` may measure, where the run asks for it anyway; channels_last where the
    run has it not already."""
    without = {"eager", "channels_last"} if in_channels_last(case.config) else {"eager"}
    if case.teacher.taps.paths or not has_onnxruntime() or uses_cuda(case.config["trainer"]):
        without.add("onnx")
    if not (case.config.get("distillation") or {}).get("compile"):
        without.add("compiled")
    return [name for name in ENGINES if name not in without]


def measure(case: Case, forms: Mapping[str, Deployed | None]) -> dict[str, float]:
    """Seconds that each form takes for a batch as the run asks: the fastest pass of several, in turns."""
    teacher, cuda = case.teacher, uses_cuda(case.config["trainer"])
    precision = str(resolve_precision(case.config["trainer"].get("precision", "auto"), cuda=cuda))
    device, shown = torch.device("cuda" if cuda else "cpu"), repeated(case.shown, case.batch_size)
    cast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    taken: dict[str, list[float]] = {name: [] for name in forms}
    shown = shown.to(device)

    def seconds(form: Deployed | None) -> float:
        teacher.deploy(form)
        teacher.start(device)
        started = time.perf_counter()
        with teacher.taps, teacher.standing_in(), cast:
            teacher.ask(shown)
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    with taps.undisturbed(teacher.network):
        once = sum(seconds(form) for form in forms.values())  # and warm
        for _ in range(max(ROUNDS[0], min(ROUNDS[1], int(SECONDS / once)))):
            for name, form in forms.items():
                taken[name].append(seconds(form))
    for form in forms.values():
        teacher.deploy(form)
        teacher.start("cpu")
        teacher.taps.remove()
    return {name: min(values) for name, values in taken.items()}


def repeated(one: Tensor, batch_size: int) -> Tensor:
    """Repeat one sample to a batch."""
    return one.expand(batch_size, *one.shape[1:]).contiguous()


def told(found: Deployed) -> str:
    rest = f", {found.kept} stay" if found.kept else ""
    return f"{found.norms} batch norms folded{rest}"
