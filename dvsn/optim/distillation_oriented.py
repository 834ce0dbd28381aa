"""An optimiser with separate momentum for the gradients of the task and of distillation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dvsn.errors import ConfigError


class DistillationOriented(Optimizer):
    """SGD with two momentum buffers: the task's has less momentum, distillation's more.

    Zhao et al., 2023, arXiv:2307.08436 (DOT), `delta` 0.075 on CIFAR-100, 0.09 on ImageNet:

        v_task    <- (momentum - delta) v_task + gradient of the task + decay * weight
        v_distill <- (momentum + delta) v_distill + gradient of distillation
        weight    <- weight - lr (v_task + v_distill)

    As published, the first gradient is its buffer. It is SGD with momentum for `delta` 0, for a parameter that only one of
    the two gradients reaches, such as a method's own modules, and in epochs without the task or without distillation.

    State: `momentum_buffer`, the sum of both buffers, and `distillation_buffer`. The sum follows
    sum <- (momentum - delta) sum + 2 delta v_distill + both gradients + decay * weight. So `grad` of a parameter is its
    whole gradient, as float16's scaler expects.

    `backward` makes the two backward passes. It does not join processes: DDP allows one pass a forward.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        momentum: float = 0.9,
        delta: float = 0.075,
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 <= delta <= momentum or not momentum + delta < 1:
            raise ConfigError(
                f"optim.delta: found {delta!r} with momentum {momentum!r}, expected 0 or more, at most the momentum, and "
                "less than 1 together with it."
            )
        if lr < 0 or weight_decay < 0:
            raise ConfigError(
                f"optim: found lr {lr!r} and weight_decay {weight_decay!r}, expected 0 or more."
            )
        self.apart: dict[Tensor, Tensor] = {}
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "delta": delta, "weight_decay": weight_decay}
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.apart = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.apart.clear()
        super().zero_grad(set_to_none)

    def backward(
        self, loss: Tensor, task: Sequence[Tensor], taught: Sequence[Tensor], *, scale: Tensor | float = 1.0
    ) -> None:
        """Add the gradients of `loss`, which is made of the terms of the task and of those of distillation. Both are
        multiplied by `scale` until the step; what is kept apart is not."""
        learned = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        terms = [[term for term in part if term.requires_grad] for part in (task, taught)]
        weights = torch.autograd.grad(loss, [*terms[0], *terms[1]], retain_graph=True)
        split = len(terms[0])
        shares = ((terms[1], weights[split:], True), (terms[0], weights[:split], False))
        theirs, own = (
            torch.autograd.grad(part, learned, given, retain_graph=again, allow_unused=True)
            if part
            else (None,) * len(learned)
            for part, given, again in shares
        )
        for parameter, first, second in zip(learned, own, theirs, strict=True):
            self._take(parameter, first, second, scale)

    @torch.no_grad()
    def _take(
        self, parameter: Tensor, own: Tensor | None, taught: Tensor | None, scale: Tensor | float
    ) -> None:
        for gradient in (own, taught):
            if gradient is not None:
                parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient
        if own is not None and taught is not None:
            before, apart = self.apart.get(parameter), taught / scale
            self.apart[parameter] = apart if before is None else before + apart

    @torch.no_grad()
    def clip(self, limit: float) -> None:
        """Shorten the whole gradient to a length of `limit`, its two parts by the same factor."""
        learned = [p for group in self.param_groups for p in group["params"]]
        factor = (limit / (nn.utils.clip_grad_norm_(learned, limit) + 1e-6)).clamp(max=1.0)
        for apart in self.apart.values():
            apart.mul_(factor)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state, apart = self.state[parameter], self.apart.get(parameter)
        momentum, delta = group["momentum"], 0.0 if apart is None else group["delta"]
        gradient = parameter.grad
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        taught = state.get("distillation_buffer")
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = gradient.clone()
        else:
            state["momentum_buffer"].mul_(momentum - delta).add_(gradient)
            if taught is not None:
                state["momentum_buffer"].add_(taught, alpha=2 * delta)
        if taught is not None:
            taught.mul_(momentum + delta)
        if apart is not None:
            state["distillation_buffer"] = apart.clone() if taught is None else taught.add_(apart)
        parameter.add_(state["momentum_buffer"], alpha=-group["lr"])
