"""What the tests of distillation methods share: sides and views of random tensors, and the comparison with a formula."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from dvsn.config.menu import conf_dir
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.types import Terms

Shapes = Sequence[tuple[int, ...]]
Reference = Callable[[Any, View, View, dict[str, Any]], Tensor]


def sides(
    mine: Shapes, theirs: Shapes, *, kind: Kind = "classes", outputs: Shapes = ((5,), (5,)), **more: Any
) -> dict[str, Side]:
    return {
        "student": Side(kind, tuple(outputs[0]), tuple(mine)),
        "teacher": Side(kind, tuple(outputs[1]), tuple(theirs), **more),
    }


def views(given: dict[str, Side], batch: int, *, seed: int = 0, scale: float = 1.0) -> tuple[View, View]:
    """Random float64 tensors; the student's need gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...], learns: bool) -> Tensor:
        values = scale * torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_(learns)

    student, teacher = (
        View(
            draw(side.output, name == "student"),
            tuple(draw(shape, name == "student") for shape in side.features),
        )
        for name, side in given.items()
    )
    return student, teacher


def cast(view: View, dtype: torch.dtype) -> View:
    """The same values as new leaves of another type."""

    def convert(tensor: Tensor) -> Tensor:
        return tensor.detach().to(dtype).requires_grad_(tensor.requires_grad)

    return View(convert(view.output), tuple(convert(feature) for feature in view.features))


def total(terms: Terms) -> Tensor:
    assert all(term.ndim == 0 for term in terms.values()), {name: term.shape for name, term in terms.items()}
    return torch.stack(list(terms.values())).sum()


def gradients(value: Tensor, view: View) -> list[Tensor]:
    """Of the output and of every feature; zeros where there is none."""
    leaves = [view.output, *view.features]
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [
        torch.zeros_like(leaf) if each is None else each for leaf, each in zip(leaves, found, strict=True)
    ]


def assert_equals(
    method: Method,
    reference: Reference,
    student: View,
    teacher: View,
    batch: dict[str, Any] | None = None,
    *,
    step: str = "forward",
    single: float = 1e-5,
) -> Tensor:
    """Value and gradient of a method against its formula: in float64 to 1e-10, in float32 to 1e-5 of the largest number."""
    batch = {} if batch is None else batch
    double, float32 = copy.deepcopy(method).double(), copy.deepcopy(method).float()
    value = total(getattr(double, step)(student, teacher, batch))
    expected = reference(copy.deepcopy(double), student, teacher, batch)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-14)
    wanted = gradients(expected, student)
    for found, right in zip(gradients(value, student), wanted, strict=True):
        torch.testing.assert_close(
            found, right, rtol=1e-10, atol=max(1e-10 * float(right.abs().max()), 1e-14)
        )

    narrow = cast(student, torch.float32)
    value32 = total(getattr(float32, step)(narrow, cast(teacher, torch.float32), batch))
    assert value32.dtype == torch.float32
    torch.testing.assert_close(value32.double(), value, rtol=single, atol=1e-9)
    for found, right in zip(gradients(value32, narrow), wanted, strict=True):
        limit = single * float(right.abs().max()) if len(right) else 0.0
        torch.testing.assert_close(found.double(), right, rtol=single, atol=max(limit, 1e-12))
    return value


def node_of(method: str) -> dict[str, Any]:
    """What a method's YAML holds, unresolved."""
    text = Path(conf_dir(), "distill", f"{method}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)[method]


def build(
    method: type[Method], pairs: Any = (), more: dict[str, Any] | None = None, **options: Any
) -> tuple[Any, Any]:
    """A method for pairs of taps (student's, teacher's), and the sides that it was built for."""
    torch.manual_seed(1)
    given = sides([mine for mine, _ in pairs], [theirs for _, theirs in pairs], **(more or {}))
    return method(**given, **options), given


def smaller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both at the smaller size, by adaptive pooling."""
    size = [min(p, q) for p, q in zip(a.shape[-2:], b.shape[-2:], strict=True)]
    return F.adaptive_avg_pool2d(a, size), F.adaptive_avg_pool2d(b, size)


def features(student: View, teacher: View) -> Any:
    return zip(student.features, teacher.features, strict=True)
