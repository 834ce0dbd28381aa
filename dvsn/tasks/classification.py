"""Classification: a class for every picture. The ImageNet forms of segmenters are pretrained by it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from dvsn.analysis.record import Matrix
from dvsn.data.mixes import BatchMix
from dvsn.distill.method import Kind
from dvsn.errors import CheckpointError, ConfigError
from dvsn.losses.classification import ClassCrossEntropy
from dvsn.metrics.calibration import CalibrationError
from dvsn.metrics.classification import ClassScore
from dvsn.networks.graft import shipped
from dvsn.networks.widening import widen
from dvsn.pictures import matrices
from dvsn.portable.cards import GREY, card
from dvsn.tasks.network import NetworkTask
from dvsn.tasks.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise, fit
from dvsn.types import Batch, Terms

log = logging.getLogger("dvsn")

DRAWN = 200  # classes of a confusion matrix that is drawn
ENLARGED = 16  # times as many pixels
GREEN, RED = (0, 130, 0), (200, 0, 0)


class Classifier(nn.Module):
    """What is shipped: uint8 RGB (N, 3, H, W) -> logits (N, K) float32."""

    def __init__(self, normalise: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.normalise, self.network = normalise, network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalise(image))
        return logits.float()


class Classification(NetworkTask):
    """One class a picture, by one network: normalised RGB (N, 3, H, W) -> logits (N, classes).

    A batch holds `image`, uint8 RGB (N, 3, H, W), and `target`, class numbers (N,).

    - `mean`, `std`: of RGB in [0, 1]. As many numbers as the pictures have channels: the network's first convolutions are
      made to read them (`dvsn.networks.widening`).
    - `shared`: the options of every `NetworkTask`.

    Where the data set finds its class names on the disk (`data.dataset.names: null`), training writes them into
    the checkpoint, so that class 3 stays the same class on every other folder. A run is not continued
    with other classes.
    """

    kind: ClassVar[str] = "classification"
    response: ClassVar[Kind] = "classes"
    samples: ClassVar[str | None] = "dataset"
    targets: ClassVar[tuple[str, ...] | None] = ("number",)

    def __init__(
        self,
        *,
        loss: ClassCrossEntropy,
        classes: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        **shared: Any,
    ) -> None:
        super().__init__(**{**shared, "network": widen(shared["network"], len(mean))})
        self.input_channels = len(mean)
        if classes < 2:
            raise ConfigError(f"task.classes: found {classes}, expected 2 or more. Set data.classes.")
        self.loss, self.classes = loss, classes
        self.normalise = Normalise(mean=mean, std=std)
        self._resumed_names: list[str] | None = None
        self.use_metrics()

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(named(self.data_recipe) or ())

    @property
    def names(self) -> tuple[str, ...]:
        """The classes by number: the data set's names where the recipe has them."""
        known = named(self.data_recipe)
        return tuple(known) if known else tuple(f"class {number}" for number in range(self.classes))

    # Training ---------------------------------------------------------------------------------------

    def ask_data(self, data: Any) -> None:
        """Also: pictures without a class are left out of the loss."""
        super().ask_data(data)
        self.loss.partly = bool(getattr(data, "has_unlabelled", False))

    def adapt_data(self, node: dict[str, Any]) -> dict[str, Any]:
        """Also: the classes of this task, in its order."""
        dataset, known = dict(node.get("dataset", {})), named(self.data_recipe)
        if known and dataset.get("names", known) is None:
            dataset["names"] = known
        pair = {**node.get("pair", {}), "source": "photo", "target": "class"}
        found = {"pair": pair, "dataset": dataset, "classes": self.classes, "label_classes": 0}
        return node | found | {"input_channels": self.input_channels}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._resumed_names = named(checkpoint.get("dvsn", {}).get("data") or {})

    def on_fit_start(self) -> None:
        super().on_fit_start()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None:
            warn_of_enlarging(data.datasets["train"], data.pair.source)
        found = getattr(data.datasets["train"], "class_names", None) if data is not None else None
        if found is None:
            return
        names, before = list(found), self._resumed_names
        if before is not None and before != names:
            changed = next(i for i, (a, b) in enumerate(zip_longest(before, names)) if a != b)
            raise CheckpointError(
                f"resume: the classes are not those of the checkpoint: it has {len(before)}, the data set {len(names)}, and "
                f"number {changed} is the first that differs. Restore the folders, or start from its weights=..."
            )
        dataset = self.data_recipe.get("dataset", {})
        if "names" in dataset:
            self.data_recipe = {**self.data_recipe, "dataset": {**dataset, "names": names}}

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Keep the numbers of the items, by which pictures are mixed, on the CPU; a GPU would have to be waited for."""
        return {**batch, "items": batch["index"].tolist()} if self._mix is not None else batch

    @property
    def _mix(self) -> BatchMix | None:
        """The data's mix of batches, in training."""
        trainer: Any = self.trainer
        mix = getattr(getattr(trainer, "datamodule", None), "mix", None) if trainer.training else None
        return mix if isinstance(mix, BatchMix) else None

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        """Also: pictures are mixed, where the data has a mix of batches."""
        mix = self._mix
        if mix is not None:
            seed = self.trainer.datamodule.seed  # type: ignore[attr-defined]
            batch = mix(batch, seed=seed, epoch=self.current_epoch)
        return super().training_step(batch, batch_idx)

    def objective(self, output: Tensor, batch: Batch) -> Terms:
        """The loss's named terms."""
        terms: Terms = self.loss(output, batch)
        return terms

    # Evaluation and use -----------------------------------------------------------------------------

    def use_metrics(self, *, top: Sequence[int] = (1, 5), calibration_bins: int = 15) -> None:  # type: ignore[override]
        """Accuracy over all pictures: `top1`, `top5`, ... Counts not below the number of classes are left out. And `ece`,
        the expected calibration error."""
        if not top or any(count < 1 for count in top):
            raise ConfigError(
                f"metrics.top: found {list(top)}, expected numbers of 1 or more, such as [1, 5]."
            )
        scores: dict[str, Any] = {
            f"top{count}": MulticlassAccuracy(self.classes, top_k=count, average="micro", validate_args=False)
            for count in top
            if count < self.classes
        }
        scores["ece"] = CalibrationError(self.classes, bins=calibration_bins)
        self._class_score = (ClassScore(self.classes),)
        # torchmetrics would merge metrics for good whose counts are equal after the first batch
        self._metrics = (MetricCollection(scores, compute_groups=False),)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 RGB (N, 3, H, W) -> logits (N, classes) float32."""
        size = self.teaching_size if self.evaluated_as_taught else None
        logits: Tensor = self.network(self.layout(fit(self.normalise(image), size)))
        return logits.float()

    def _evaluate(self, batch: Batch) -> Tensor:
        logits = self(batch["image"])
        self.metrics.update(logits, batch["target"])
        self.class_score.update(logits, batch["target"])
        return logits

    @property
    def class_score(self) -> ClassScore:
        """The counts behind the table by class, which are no score of their own."""
        return self._class_score[0]

    def on_validation_start(self) -> None:
        super().on_validation_start()
        self.class_score.to(self.device).reset()

    def on_test_start(self) -> None:
        super().on_test_start()
        self.class_score.to(self.device).reset()

    def matrices(self) -> tuple[Matrix, ...]:
        counts, names = self.class_score.compute().tolist(), self.names
        return (Matrix("confusion", "Confusion", names, names, tuple(map(tuple, counts))),)

    def by_class(self) -> list[dict[str, Any]]:
        return self.details()["classes"]

    def details(self) -> dict[str, list[dict[str, Any]]]:
        with self.class_score.sync_context(should_sync=self.class_score.distributed_available_fn()):
            table = self.class_score.table()
            pictures = self.class_score.confmat.sum(dim=1).tolist()
        columns = {name: [None if v != v else v for v in values.tolist()] for name, values in table.items()}
        return {
            "classes": [
                {
                    "class": name,
                    **{key: values[i] for key, values in columns.items()},
                    "pictures": int(pictures[i]),
                }
                for i, name in enumerate(self.names)
            ]
        }

    def detail_pictures(self) -> dict[str, Any]:
        """The confusion matrix, as long as its cells can be told apart."""
        if self.classes > DRAWN:
            return {}
        with self.class_score.sync_context(should_sync=self.class_score.distributed_available_fn()):
            matrix = self.class_score.confmat.double()
        shares = matrix / matrix.sum(dim=1, keepdim=True)
        return {"confusion": matrices.picture(shares.cpu().numpy(), self.names)}

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        """One column: each picture in a square, and below it what it was taken for and what it is."""
        shares, predicted = output.softmax(dim=1).max(dim=1)
        truth = batch["target"].tolist() if "target" in batch else [None] * len(output)
        names, cards = self.names, []
        for picture, share, guess, true in zip(
            self.show_input(batch["image"]).cpu(), shares.tolist(), predicted.tolist(), truth, strict=True
        ):
            colour = GREY if true is None else GREEN if guess == true else RED
            lines = [(f"{share:.0%} {names[guess]}", colour)]
            lines += [] if true is None else [(f"is {names[true]}", GREY)]
            cards.append(torch.from_numpy(card(picture.permute(1, 2, 0).numpy(), lines)))
        return {"prediction": torch.stack(cards).permute(0, 3, 1, 2)}

    answers: ClassVar[tuple[str, ...]] = ("cards", "table")

    shows: ClassVar[str] = "classes"

    def deployable(self) -> nn.Module:
        return Classifier(self.normalise, shipped(self.network)).eval()


def named(data_recipe: dict[str, Any]) -> list[str] | None:
    """The class names in a data set's recipe, where it has any."""
    names: list[str] | None = data_recipe.get("dataset", {}).get("names")
    return names


def warn_of_enlarging(dataset: Any, source: str = "photo") -> None:
    """Say so where the transform makes much larger pictures of small ones: each then costs as much as a large one."""
    with dataset.ruled():
        stored = dataset.read(0)[source].shape[:2]
    shown = dataset[0]["image"].shape[-2:]
    if shown[0] * shown[1] >= ENLARGED * stored[0] * stored[1]:
        log.warning(
            "transform: makes %dx%d of pictures of %dx%d. Small pictures are usually trained on as they are, by "
            "transform=cifar.", *shown, *stored,
        )  # fmt: skip
