"""Paired image translation with a conditional GAN."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.loops.utilities import _block_parallel_sync_behavior
from torch import Tensor, nn
from torch.optim import Optimizer

from dvsn.config.build import build
from dvsn.data.cityscapes_labels import CLASS_NAMES, LABELS, PALETTE, TRAIN_PALETTE
from dvsn.data.class_ids import distinct_palette
from dvsn.data.street_parts import PART_PALETTE, PARTS
from dvsn.distill.distiller import Distiller
from dvsn.distill.method import Kind
from dvsn.errors import ConfigError, DataError
from dvsn.losses.translation import TranslationLoss
from dvsn.metrics.fcn_score import ids_of_colors
from dvsn.metrics.translation import translation_metrics
from dvsn.optim.schedules import Schedule
from dvsn.tasks.base import OptimizerFactory, Task
from dvsn.tasks.inference import Inference, Read, joined, pieces
from dvsn.tasks.normalise import fit
from dvsn.tasks.painted_score import PaintedScore
from dvsn.tasks.student import Student, Translate
from dvsn.types import Batch, Terms, Vocabulary


class Encoder(nn.Module):
    """uint8 input -> what the generator reads.

    Input: (N, C, H, W) uint8. A picture becomes float in [-1, 1] (`signed`) or [0, 1] (`unit`). With
    `label_classes` > 0 channel 0 holds class ids and becomes one-hot (N, label_classes, H, W); a second
    channel, instance edges of 0 and 1, is appended as it is. Ids were checked when the file was read.
    """

    def __init__(self, *, value_range: Literal["signed", "unit"], label_classes: int = 0) -> None:
        super().__init__()
        self.value_range, self.label_classes = value_range, label_classes

    def forward(self, image: Tensor) -> Tensor:
        if not self.label_classes:
            return picture_to_range(image, self.value_range)
        ids = image[:, 0].long()  # (N, H, W)
        planes = F.one_hot(ids, self.label_classes).permute(0, 3, 1, 2).float()  # (N, K, H, W)
        return torch.cat([planes, image[:, 1:].float()], dim=1)


def picture_to_range(image: Tensor, value_range: str) -> Tensor:
    """uint8 0..255 -> float in [-1, 1] (`signed`) or [0, 1] (`unit`)."""
    return image.float() / 127.5 - 1 if value_range == "signed" else image.float() / 255


def unit_to_range(image: Tensor, value_range: str) -> Tensor:
    """[0, 1] -> the range of the networks."""
    return image * 2 - 1 if value_range == "signed" else image


def range_to_unit(image: Tensor, value_range: str) -> Tensor:
    """Generator output -> float32 in [0, 1]. In the `unit` range what tanh puts below zero becomes zero."""
    image = image.float()
    return ((image + 1) / 2 if value_range == "signed" else image).clamp(0, 1)


class Translator(nn.Module):
    """What pix2pix ships: uint8 input (N, C, H, W) -> float RGB in [0, 1] (N, 3, H, W), or grey (N, 1, H, W)."""

    def __init__(self, encoder: nn.Module, network: nn.Module, value_range: str) -> None:
        super().__init__()
        self.encoder, self.network, self.value_range = encoder, network, value_range

    def forward(self, image: Tensor) -> Tensor:
        return range_to_unit(self.network(self.encoder(image)), self.value_range)


class Pix2Pix(Task):
    """Isola et al., 2017, arXiv:1611.07004: a generator under L1 and a PatchGAN discriminator.

    A batch holds `image`, the condition (label map or picture), and `target`, the picture wanted; both
    uint8 (N, C, H, W). Each step updates the discriminator on real and generated pairs, then the generator.

    Differences from the paper and from its reproductions are options:

    - `value_range`: `signed` maps pictures to [-1, 1] as the paper does; `unit` to [0, 1], as the Cityscapes
      blog recipe (`experiment=pix2pix_cityscapes_post`) does, half of tanh's range then being useless.
    - `generator_forwards`: 1 generates once a step and uses the picture for both updates (paper, reference);
      2 generates again, with new dropout masks, for the generator's update (the blog recipe).
    - `discriminator_order`: `fake_first` (reference) or `real_first` (paper, blog). Only the running
      statistics of batch norm can tell the difference.
    - the order of condition and image in the discriminator's input is `discriminator.image_first`.
    - `test_dropout` and `test_norm`: the paper tests with dropout on and with the statistics of the test
      image (`batch`); the blog recipe with dropout off and running statistics (`running`). Running
      statistics learnt with a batch of one do not fit single pictures, which makes test results look worse
      than training previews. The choice is part of the recipe and so of the checkpoint.

    The task optimises by hand. `trainer.gradient_clip_val`, its algorithm, and
    `trainer.accumulate_grad_batches` arrive here and mean what they mean elsewhere: clipping acts on
    unscaled gradients of each optimiser, and k accumulated batches make exactly the two updates of
    one k times larger batch (batch norm and dropout aside): the generator's gradient is taken against
    the updated discriminator, by running the generator a second time on the batches of the window.

    A network of one input channel reads the brightness of a picture, one of one output channel makes grey pictures (N, 1, H,
    W). Metrics see these as RGB of equal channels.

    `discriminator` may be null for a task that is only used, such as a converted generator.
    `optim_discriminator` defaults to `optim`. `trainer.global_step` counts generator updates.
    Sides must be divisible by `network.multiple`.
    """

    kind: ClassVar[str] = "pix2pix"
    tells_items: ClassVar[bool] = False
    measures_in_float32: ClassVar[bool] = True
    response: ClassVar[Kind] = "image"
    samples: ClassVar[str | None] = "dataset"
    targets: ClassVar[tuple[str, ...] | None] = ("photo", "label")
    trains_with: ClassVar[tuple[str, ...]] = ("discriminator",)
    needs_unused_parameters: ClassVar[bool] = True
    optimizer_names: ClassVar[tuple[str, ...]] = ("discriminator", "network")
    answers: ClassVar[tuple[str, ...]] = ("picture",)
    inference: Inference = Inference()
    """Whole pictures, or windows that slide, which prediction asks for: of evaluation and training it is no option."""

    def __init__(
        self,
        *,
        network: nn.Module,
        discriminator: nn.Module | None,
        loss: TranslationLoss,
        optim: OptimizerFactory,
        optim_discriminator: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        label_classes: int = 0,
        value_range: Literal["signed", "unit"] = "signed",
        generator_forwards: Literal[1, 2] = 1,
        discriminator_order: Literal["fake_first", "real_first"] = "fake_first",
        test_dropout: bool = False,
        test_norm: Literal["running", "batch"] = "running",
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] | None = None,
        accumulate_grad_batches: int = 1,
    ) -> None:
        super().__init__(optim=optim, schedule=schedule)
        self.automatic_optimization = False
        if accumulate_grad_batches < 1:
            raise ConfigError(
                f"trainer.accumulate_grad_batches: found {accumulate_grad_batches}, expected 1 or more."
            )
        self.network, self.discriminator, self.loss = network, discriminator, loss
        if not label_classes:
            self.input_channels = int(getattr(network, "input_channels", 3))
        self.output_channels = int(getattr(network, "output_channels", 3))
        self.encoder = Encoder(value_range=value_range, label_classes=label_classes)
        self.optim_discriminator = optim_discriminator or optim
        self.value_range, self.generator_forwards = value_range, generator_forwards
        self.discriminator_order = discriminator_order
        self.test_dropout, self.test_norm = test_dropout, test_norm
        self.gradient_clip_val, self.gradient_clip_algorithm = gradient_clip_val, gradient_clip_algorithm
        self.accumulate_grad_batches = accumulate_grad_batches
        self._fcn: tuple[PaintedScore, ...] = ()  # in a tuple: not part of the task's state
        self.use_metrics()
        self._window: list[tuple[Tensor, Tensor, Batch]] = []

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {name: net for name, net in self.named_children() if name in ("network", "discriminator")}

    @property
    def window_open(self) -> bool:
        return bool(self._window)

    def adapt_data(self, node: dict[str, Any]) -> dict[str, Any]:
        """Pictures are read in as many channels as the generator takes and makes."""
        counts = {"input_channels": self.input_channels, "output_channels": self.output_channels}
        return node if self.encoder.label_classes or node.get("label_classes") else node | counts

    # Training ---------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Discriminator first: the order in which they step. Each has its own copy of the schedule."""
        if self.discriminator is None:
            raise ConfigError(
                "task.discriminator: is null, and training needs one. Set discriminator=patchgan."
            )
        optimizers = [
            self.optim_discriminator(self.discriminator.parameters()),
            self.optim(self.with_distiller([{"params": list(self.network.parameters())}])),
        ]
        return optimizers, [self.attach_schedule(optimizer) for optimizer in optimizers]

    def prepare(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Condition and target on the device: float, in the value range and memory layout of the networks."""
        self.check_sides(batch)
        condition = self.encoder(batch["image"])
        target = picture_to_range(batch["target"], self.value_range)
        return self.layout(condition), self.layout(target)

    def check_sides(self, batch: Batch) -> None:
        if self.inference.mode == "slide":
            return  # the network sees windows
        height, width = batch["image"].shape[-2:]
        multiple = int(getattr(self.network, "multiple", 1))
        if height % multiple or width % multiple:
            raise DataError(
                f"{batch.get('name', ['the input'])[0]}: the picture is {height} x {width} (height x width) after "
                f"the transform; {type(self.network).__name__} needs both sides divisible by {multiple}. "
                "Choose a transform of such a size, or a network with fewer levels."
            )

    def judge(self, condition: Tensor, image: Tensor) -> Tensor:
        """Score maps of the discriminator for pairs."""
        assert self.discriminator is not None
        return self.discriminator(self.discriminator.join(condition, image))  # type: ignore[operator]

    def objective(self, condition: Tensor, output: Tensor, target: Tensor) -> Terms:  # type: ignore[override]
        """The generator's named terms."""
        return self.loss.generator_terms(self.judge(condition, output), output, target)

    # Distillation: of the generator.

    def see(self, image: Tensor) -> Tensor:
        return self.layout(self.encoder(image))

    def teach(self, image: Tensor) -> Tensor:
        """As `Task.teach`, by the recipe's test mode and in float32, as it is measured. Ids cannot be resized, so the size
        of a label map stays."""
        seen = self.encoder(image)
        size = None if self.encoder.label_classes else self.teaching_size
        with self.test_mode(), torch.autocast(image.device.type, enabled=False):
            taught: Tensor = self.network(self.layout(fit(seen, size)))
        return taught

    def translate_from(self, teacher: Student) -> Translate | None:
        """The teacher's picture in this task's value range, with the values that the teacher is measured by."""
        theirs = str(getattr(teacher, "value_range", self.value_range))
        if theirs == self.value_range == "signed":
            return None
        return lambda output, _: unit_to_range(range_to_unit(output, theirs), self.value_range)

    @property
    def answers_alone(self) -> bool:
        """Not with dropout, and not by the statistics of a batch."""
        layers = list(self.network.modules())
        dropout = any(isinstance(each, nn.modules.dropout._DropoutNd) and each.p > 0 for each in layers)
        norms = any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in layers)
        return not (self.test_dropout and dropout) and not (self.test_norm == "batch" and norms)

    def use_distiller(self, distiller: Distiller, recipe: dict[str, Any]) -> None:
        if distiller.stages:
            names = ", ".join(name for name, _ in distiller.stages)
            raise ConfigError(
                f"distill: {names} asks for an initial stage, which task=pix2pix does not have: its two networks start "
                "together. Set the stage's epochs to 0, or choose another method."
            )
        super().use_distiller(distiller, recipe)

    def generate(self, condition: Tensor) -> Tensor:
        """The generator's picture, its taps recorded for the distiller."""
        with nullcontext() if self.distiller is None else self.distiller.taps:
            return self.layout(self.network(condition))

    def generator_objective(self, condition: Tensor, output: Tensor, target: Tensor, batch: Batch) -> Terms:
        """The generator's named terms, and those of distillation."""
        if self.distiller is None:
            return self.objective(condition, output, target)
        return self.distiller.join(
            lambda: self.objective(condition, output, target), output, batch, self.shown(batch)
        )

    def discriminator_objective(self, condition: Tensor, fake: Tensor, real: Tensor) -> tuple[Terms, Tensor]:
        """The discriminator's named terms on a detached `fake`, and the share of its decisions that are right."""
        if self.discriminator_order == "fake_first":
            fake_logits, real_logits = self.judge(condition, fake), self.judge(condition, real)
        else:
            real_logits, fake_logits = self.judge(condition, real), self.judge(condition, fake)
        terms = self.loss.discriminator_terms(real_logits, fake_logits)
        if self.loss.penalty_weight > 0:
            assert self.discriminator is not None
            terms["penalty"] = self.loss.gradient_penalty(self.discriminator, condition, real, fake)
        shares = self.loss.accuracy(real_logits, fake_logits)
        return terms, (shares["real"] + shares["fake"]) / 2

    def try_step(self, batch: Batch) -> None:
        condition, _ = self.prepare(batch)
        self.judge(condition, self.layout(self.network(condition)))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[misc, attr-defined]
        self._count_once(optimizer_d)
        last = batch_idx + 1 >= self.trainer.num_training_batches
        size = self._window_size(batch_idx)
        closing = last or len(self._window) + 1 == size
        if not self._window:
            optimizer_d.zero_grad()
            optimizer_g.zero_grad()

        condition, target = self.prepare(batch)
        # A window of several batches generates again once the discriminator has moved on.
        regenerate = size > 1 or self.generator_forwards == 2
        with torch.set_grad_enabled(not regenerate):
            fake = self.layout(self.network(condition)) if regenerate else self.generate(condition)
        terms, right = self.discriminator_objective(condition, fake.detach(), target)
        self._backward(total(terms) / size, sync=closing)
        self.record(terms)
        if self.logs_now:
            self.log("train/discriminator_accuracy", right)
        self._window.append((condition, target, batch))
        if not closing:
            return

        self._step(optimizer_d, 0)
        assert self.discriminator is not None
        with frozen(self.discriminator):
            window, self._window = self._window, []
            for number, (condition, target, earlier) in enumerate(window, start=1):
                output = self.generate(condition) if regenerate else fake
                terms = self.generator_objective(condition, output, target, earlier)
                self._backward(total(terms) / size, sync=number == len(window))
                self.record(terms)
        self._step(optimizer_g, 1)

    def _window_size(self, batch_idx: int) -> int:
        """How many batches the current accumulation joins: fewer at the end of an epoch."""
        first = batch_idx - len(self._window)
        remaining = int(self.trainer.num_training_batches) - first
        return max(1, min(self.accumulate_grad_batches, remaining))

    def _backward(self, loss: Tensor, *, sync: bool) -> None:
        with ExitStack() as stack:
            if not sync:
                stack.enter_context(_block_parallel_sync_behavior(self.trainer.strategy))
            self.manual_backward(loss)

    def _step(self, optimizer: LightningOptimizer, number: int) -> None:
        optimizer.step()
        self.lr_schedulers()[number].step()  # type: ignore[index, union-attr, call-arg]

    def _count_once(self, optimizer: LightningOptimizer) -> None:
        """Keep the discriminator's steps out of `global_step`, which would count two a batch."""
        profiler: Any = self.trainer.profiler  # type: ignore[attr-defined]
        optimizer._on_before_step = lambda: profiler.start("optimizer_step")  # type: ignore[method-assign]
        optimizer._on_after_step = lambda: profiler.stop("optimizer_step")  # type: ignore[method-assign]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip here, where Lightning has already undone the loss scale of float16."""
        if self.gradient_clip_val:
            self.clip_gradients(
                optimizer,
                gradient_clip_val=self.gradient_clip_val,
                gradient_clip_algorithm=self.gradient_clip_algorithm or "norm",
            )

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._window = []

    # Evaluation and use -----------------------------------------------------------------------------

    def forward(self, image: Tensor) -> Tensor:
        """uint8 condition (N, C, H, W) -> generated picture, float32 in [0, 1], by the recipe's test mode.

        In float32 also where training is mixed: bfloat16 puts a fine noise on flat regions, which hardly moves
        PSNR but halves SSIM (0.27 against 0.48 on the demonstration).
        """
        with self.test_mode(), torch.autocast(image.device.type, enabled=False):
            if self.evaluated_as_taught:
                output = fit(self.teach(image), image.shape[-2:])
            elif self.inference.mode == "slide":
                output = joined(self.made, self.encoder(image), self.inference, align_corners=False)
            else:
                output = self.made(self.encoder(image))
        return range_to_unit(output, self.value_range)

    def made(self, condition: Tensor) -> Tensor:
        """What the generator makes of an encoded condition."""
        return self.network(self.layout(condition))  # type: ignore[no-any-return]

    def predict_pieces(
        self, read: Read, size: tuple[int, int], *, device: str, together: int = 1
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """What is made of a picture of `size` (H, W) that is read by windows: top, left and (h, w, C) uint8 of rectangles
        that cover it, row after row. They are those of `answer`.

        `read` gives the uint8 condition (1, C, height, width) from top, left, height and width. The inference slides.
        """

        def seen(*place: int) -> Tensor:
            return self.encoder(read(*place).to(device))  # type: ignore[no-any-return]

        with self.test_mode(), torch.autocast(torch.device(device).type, enabled=False):
            found = pieces(self.made, seen, size, self.inference, align_corners=False, together=together)
            for top, left, values in found:
                picture = to_bytes(range_to_unit(values, self.value_range))
                yield top, left, picture[0].permute(1, 2, 0).cpu().numpy()

    @contextmanager
    def test_mode(self) -> Iterator[None]:
        """The generator as the recipe tests it: dropout on or off, running or per-batch statistics."""
        was = {module: module.training for module in self.network.modules()}
        tracked: list[nn.modules.batchnorm._BatchNorm] = []
        self.network.eval()
        for module in self.network.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.train(self.test_dropout)
            elif isinstance(module, nn.modules.batchnorm._BatchNorm) and self.test_norm == "batch":
                module.train()
                if module.track_running_stats:
                    module.track_running_stats = False  # use the batch's statistics, keep the running ones
                    tracked.append(module)
        try:
            yield
        finally:
            for module in tracked:
                module.track_running_stats = True
            for module, training in was.items():
                module.training = training

    def use_metrics(  # type: ignore[override]
        self,
        *,
        inception_weights: str | None = None,
        lpips_weights: str | None = None,
        lpips_network: str = "alex",
        kid_subset_size: int = 50,
        segmenter: str | None = None,
        segmenter_size: list[int] | None = None,
    ) -> None:
        """`segmenter`, a segmentation checkpoint of dvsn, adds the FCN score of generated photos, which are enlarged
        to `segmenter_size` (H, W) first if it is given, as the paper enlarges them to 1024x2048."""
        self._metrics = (
            translation_metrics(
                inception_weights=inception_weights,
                lpips_weights=lpips_weights,
                lpips_network=lpips_network,
                kid_subset_size=kid_subset_size,
            ),
        )
        self._fcn = () if segmenter is None else (PaintedScore(segmenter, size=segmenter_size),)

    def on_test_start(self) -> None:
        super().on_test_start()
        for score in self._fcn:
            score.move(self.device)

    def on_validation_start(self) -> None:
        super().on_validation_start()
        for score in self._fcn:
            score.move(self.device)

    def _close_metrics(self, split: str) -> None:
        super()._close_metrics(split)
        for score in self._fcn:
            self.log_dict({f"{split}/fcn_{name}": value for name, value in score.compute().items()})
            score.reset()

    def _evaluate(self, batch: Batch) -> Tensor:
        self.check_sides(batch)
        output = self(batch["image"])
        # float32: in bfloat16 SSIM is about halved; FID, LPIPS and the FCN score run networks
        with torch.autocast(output.device.type, enabled=False):
            made, real = as_rgb(output), as_rgb(batch["target"]).float() / 255
            for score in self._fcn:
                score.update(made, self.show_input(batch["image"]))
            # torchmetrics flattens by `view`, which a channels_last picture does not allow
            self.metrics.update(made.contiguous(), real.contiguous())
        return output

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        source = self.data_recipe.get("pair", {}).get("source", "input")
        title = {"label": "label map"}.get(source, f"input {source}" if len(source) == 1 else source)
        columns = {title: self.show_input(batch["image"]), "generated": as_rgb(to_bytes(output))}
        if "target" in batch:
            columns["real"] = as_rgb(batch["target"])
        return columns

    def answer(self, image: Tensor, kind: str) -> Tensor:
        return to_bytes(self(image))

    def results(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        return {"generated": to_bytes(output)}

    @property
    def input_classes(self) -> int:  # type: ignore[override]
        return self.encoder.label_classes

    def show_input(self, image: Tensor) -> Tensor:
        """The condition as an RGB picture; class ids get the colours of a fixed palette."""
        if not self.encoder.label_classes:
            return super().show_input(image)
        palette = label_palette(self.encoder.label_classes).to(image.device)
        return palette[image[:, 0].long()].permute(0, 3, 1, 2)

    def label_map(self, image: Tensor) -> tuple[Tensor, tuple[str, ...]] | None:
        """The classes (N, H, W) of a condition that is a label map, 255 where there is none, and their names; None where
        it is none, or its colours have no known meaning."""
        classes = self.encoder.label_classes
        if classes:
            return image[:, 0].long(), label_names(classes) or tuple(
                f"class {number}" for number in range(classes)
            )
        if self.data_recipe.get("pair", {}).get("source") != "label" or image.shape[1] != 3:
            return None
        found = self.vocabulary
        if found is None:
            return None
        return ids_of_colors(image, torch.tensor(found.palette, dtype=torch.uint8)), found.names

    @functools.cached_property
    def vocabulary(self) -> Vocabulary | None:
        """Names and colours of the classes of the data set of the recipe; None where it has none."""
        found: Vocabulary | None = (
            build(self.data_recipe, path="data").vocabulary if self.data_recipe else None
        )
        return found

    def deployable(self) -> nn.Module:
        return Translator(self.encoder, self.network, self.value_range).eval()


def total(terms: Terms) -> Tensor:
    return torch.stack(list(terms.values())).sum()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the parameters of `module`: saves a third of its backward and leaks nothing into it."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def to_bytes(image: Tensor) -> Tensor:
    """Float [0, 1] -> uint8, rounded to nearest."""
    return (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def as_rgb(image: Tensor) -> Tensor:
    """(N, 1 or 3, H, W) -> (N, 3, H, W), a grey picture as three equal channels."""
    return image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image


def label_palette(classes: int) -> Tensor:
    """(classes, 3) uint8: Cityscapes' own colours for its 34 ids and 19 train ids, those of `street_parts` for its parts,
    else PASCAL VOC's colours."""
    if classes in (34, 35):
        return torch.from_numpy(PALETTE[:classes].copy())
    if classes in (19, 20):
        return torch.from_numpy(TRAIN_PALETTE[:classes].copy())
    if classes == len(PARTS):
        return torch.from_numpy(PART_PALETTE[:classes].copy())
    return torch.tensor(distinct_palette(classes), dtype=torch.uint8)


def label_names(classes: int) -> tuple[str, ...] | None:
    """The names of classes by the same rule as their colours in `label_palette`; None where they have none."""
    if classes in (34, 35):
        return (*(label.name for label in LABELS if label.id >= 0), "license plate")[:classes]
    if classes in (19, 20):
        return (*CLASS_NAMES, "void")[:classes]
    if classes == len(PARTS):
        return tuple(f"{part.label} {part.piece}".strip() for part in PARTS)
    return None
