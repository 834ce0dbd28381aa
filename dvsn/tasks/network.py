"""What tasks of one network share: the network, and the parameter groups of its optimiser."""

from __future__ import annotations

from typing import Any

from torch import nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import class_layers
from dvsn.optim.schedules import Schedule
from dvsn.tasks import parameters
from dvsn.tasks.base import OptimizerFactory, Task
from dvsn.types import Batch


class NetworkTask(Task):
    """Base of tasks that train one network. Options of all these tasks, beside the network and its optimiser:

    - `head_factor`: multiplies the learning rate of `head_modules`;
    - `head_modules`: paths of the layers that make the answer; null: those that the network names (`class_layers`);
    - `decay_norms`: false spares batch norms and biases the weight decay;
    - `freeze`: patterns of modules and parameters that do not learn; batch norms in them stay in eval mode, with the
      statistics that they have;
    - `rates`: factors of the learning rate by pattern (see `dvsn.tasks.parameters.named_by`).
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        optim: OptimizerFactory,
        schedule: Schedule | None = None,
        head_factor: float = 1.0,
        head_modules: list[str] | None = None,
        decay_norms: bool = True,
        freeze: list[str] | None = None,
        rates: dict[str, float] | None = None,
    ) -> None:
        super().__init__(optim=optim, schedule=schedule)
        self.network: Any = network
        self.head_factor, self.head_modules, self.decay_norms = head_factor, head_modules, decay_norms
        self.freeze_patterns, self.rates = tuple(freeze or ()), dict(rates or {})
        parameters.freeze(network, self.freeze_patterns)
        parameters.rates_of(network, self.rates)  # a pattern that fits nothing is refused now
        self._still: list[nn.Module] = []  # norms that stay in eval mode

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"network": self.network}

    def configure_optimizers(self) -> Any:
        """One optimiser for the student. Raises `ConfigError` for a `head_factor` where no head is known."""
        heads = self.head_modules or class_layers(self.student)
        if self.head_factor != 1.0 and not heads:
            raise ConfigError(
                f"task.head_factor: {type(self.student).__name__} does not say which its class layers are. Set "
                "task.head_modules, such as [fc]."
            )
        groups = parameters.parameter_groups(
            self.student,
            self.optim,
            heads=heads,
            factor=self.head_factor,
            decay_norms=self.decay_norms,
            rates=self.rates,
        )
        return self.scheduled(groups)

    def on_train_start(self) -> None:
        self._still = parameters.frozen_norms(self.student, self.freeze_patterns)
        self._hold_still()
        super().on_train_start()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self._hold_still()  # whoever has set the modes of the network

    def _hold_still(self) -> None:
        for norm in self._still:
            norm.eval()
