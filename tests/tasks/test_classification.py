"""Classification: folders as classes, the loss and the scores by hand, and runs that learn, resume and hand on weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf
from torch import nn

import dvsn
from dvsn import evaluate, train
from dvsn.config.build import build
from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.data.image_folder import ImageFolder
from dvsn.data.transforms import Pair, Transform
from dvsn.engine import trainer as runtime
from dvsn.engine.initial_weights import start_from
from dvsn.errors import CheckpointError, ConfigError, DataError
from dvsn.losses.classification import ClassCrossEntropy
from dvsn.portable.cards import card
from dvsn.tasks.classification import Classification
from tests.support.resuming import equal, run
from tests.support.tiny import COLOURS, composed, write_blobs

SMALL = [
    "task=classification", "network.width=4", "network.feature_width=16", "transform=none", "callbacks=none",
    "logger=none", "trainer=cpu", "trainer.enable_progress_bar=false", "data.workers=0", "data.classes=3",
    "data.batch_size=6", "data.eval_batch_size=4",
]  # fmt: skip

SHUFFLE = {
    "_target_": "torchvision.models.shufflenetv2.ShuffleNetV2",
    "stages_repeats": [1, 1, 1],
    "stages_out_channels": [24, 8, 16, 32, 64],
    "num_classes": 3,
}


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("blobs"))


def config_of(root: Path, folder: Path, *more: str) -> dict[str, Any]:
    return composed([*SMALL, f"data.root={root}", *more], folder)


# The reader ------------------------------------------------------------------------------------------


def test_classes_are_numbered_by_the_training_folders_in_every_split(tmp_path: Path) -> None:
    root = write_blobs(tmp_path, train=2, val=1)
    for picture in (root / "val" / "blue").iterdir():
        picture.unlink()
    (root / "val" / "blue").rmdir()
    (root / "val" / ".hidden").mkdir()
    (root / "train" / "red" / "._0.png").write_bytes(b"macOS")
    (root / "train" / "red" / "deeper").mkdir()
    (root / "train" / "red" / "0.png").rename(root / "train" / "red" / "deeper" / "0.PNG")
    seen = ImageFolder(root=str(root), split="train")
    assert seen.class_names == ("blue", "green", "red") and len(seen) == 6
    assert [seen[i]["class"] for i in range(6)] == [0, 1, 2, 0, 1, 2]  # the first few are a fair sample
    assert len({seen.name(i) for i in range(6)}) == 6
    for i in range(6):
        assert (
            int(seen[i]["photo"].mean(axis=(0, 1)).argmax()) == 2 - seen[i]["class"]
        )  # RGB: red is last class
    val = ImageFolder(root=str(root), split="val")
    assert [(val[i]["class"], val.path(i).parent.name) for i in range(2)] == [(1, "green"), (2, "red")]
    stated = ImageFolder(root=str(root), split="val", names=["red", "green"], classes_from="nowhere")
    assert sorted((stated[i]["class"], stated.path(i).parent.name) for i in range(2)) == [
        (0, "red"),
        (1, "green"),
    ]


def test_a_sample_is_a_picture_and_a_number(blobs: Path) -> None:
    steps = build(composed(["task=classification"], Path("x"))["data"]["transform"]["eval"], path="transform")
    transform = Transform(steps=steps, pair=Pair(source="photo", target="class"))
    sample = ImageFolder(root=str(blobs), split="train", transform=transform)[3, 1]
    assert sample["image"].shape == (3, 224, 224) and sample["image"].dtype == torch.uint8
    assert sample["target"] == 1 and type(sample["target"]) is int and sample["index"] == 1


def test_training_views_are_crops_of_one_size() -> None:
    steps = build(
        composed(["task=classification"], Path("x"))["data"]["transform"]["train"], path="transform"
    )
    transform = Transform(steps=steps, pair=Pair(source="photo", target="class"))
    ramp = np.repeat(np.arange(250, dtype=np.uint8)[None, :, None], 100, axis=0).repeat(
        3, axis=2
    )  # (100, 250, 3)
    sample = {
        "photo": ramp,
        "class": 7,
        "index": 0,
        "name": "x",
        "kinds": {"photo": "photo", "class": "number"},
    }
    views = [transform(sample, seed)["image"][0].float() for seed in range(40)]
    assert {tuple(view.shape) for view in views} == {(224, 224)}
    widths = [float((view[:, -1] - view[:, 0]).mean().abs()) for view in views]  # columns covered of 250
    assert min(widths) < 60 < 100 < max(widths) < 140  # 8 % of the area to its full height, at 3:4 to 4:3
    assert {bool(view[0, -1] > view[0, 0]) for view in views} == {True, False}  # mirrored or not


def broken(tmp_path: Path, what: str) -> Path:
    root = write_blobs(tmp_path / "data", train=1, val=1)
    red = root / "train" / "red" / "0.png"
    if what == "empty class":
        red.rename(root / "red.png")
    elif what == "no folder":
        for name in COLOURS:
            (root / "train" / name / "0.png").rename(root / "train" / f"{name}.png")
            (root / "train" / name).rmdir()
    elif what == "unreadable":
        red.write_bytes(red.read_bytes()[:200])
    elif what == "foreign class":
        (root / "val" / "red").rename(root / "val" / "rad")
    elif what == "no val":
        (root / "val").rename(root / "elsewhere")
    return root


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("empty class", ["train/red", "no picture"]),
        ("no folder", ["train", "no class folder, but 3 pictures", "CLASS/NAME.jpg"]),
        ("unreadable", ["train/red/0.png", "truncated"]),
        ("foreign class", ["val/rad", "no class of this name", "red", "folders of the split 'train'"]),
        ("no val", ["/val: no such folder", "CLASS/NAME.jpg", "data.splits"]),
    ],
)
def test_bad_folders_are_refused_with_their_names(what: str, words: list[str], tmp_path: Path) -> None:
    data = runtime.build_data(config_of(broken(tmp_path, what), tmp_path / "run"))
    with pytest.raises(DataError) as caught:
        data.setup("fit")
        [data.datasets["train"][i] for i in range(3)]
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_wrong_number_of_classes_is_refused(blobs: Path, tmp_path: Path) -> None:
    data = runtime.build_data(config_of(blobs, tmp_path, "data.classes=4"))
    with pytest.raises(
        ConfigError, match=r"found 4, .* has 3 classes: blue, green, red\. Set data\.classes=3"
    ):
        data.setup("fit")


def test_names_twice_and_tasks_that_do_not_fit_are_refused(blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="named twice"):
        ImageFolder(root=str(blobs), split="val", names=["red", "red"])
    for pair, word in ((["class", "photo"], "is a number"), (["photo", "label"], "lacks")):
        changed = [f"data.pair.source={pair[0]}", f"data.pair.target={pair[1]}"]
        with pytest.raises(ConfigError, match=word):
            runtime.build_data(config_of(blobs, tmp_path, *changed)).setup("fit")


# The loss --------------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    logits = torch.tensor([[math.log(2), math.log(1), math.log(1)], [math.log(3), math.log(1), math.log(4)]])
    target = torch.tensor([0, 1])  # probabilities 1/2 and 1/8
    plain = ClassCrossEntropy(classes=3)(logits, {"target": target})
    assert list(plain) == ["cross_entropy"]
    assert float(plain["cross_entropy"]) == pytest.approx((math.log(2) + math.log(8)) / 2)
    smooth = ClassCrossEntropy(classes=3, label_smoothing=0.3)(logits, {"target": target})["cross_entropy"]
    first = 0.7 * math.log(2) + 0.1 * (math.log(2) + math.log(4) + math.log(4))
    second = 0.7 * math.log(8) + 0.1 * (math.log(8 / 3) + math.log(8) + math.log(2))
    assert float(smooth) == pytest.approx((first + second) / 2)


def test_the_loss_is_worked_out_in_float32() -> None:
    logits = torch.tensor([[30.0, 0.0, 0.0]], dtype=torch.bfloat16)
    value = ClassCrossEntropy(classes=3)(logits, {"target": torch.tensor([1])})["cross_entropy"]
    assert value.dtype == torch.float32 and float(value) == pytest.approx(30.0)


def test_the_loss_refuses_what_does_not_fit() -> None:
    loss = ClassCrossEntropy(classes=3)
    batch = {"target": torch.tensor([0, 1])}
    with pytest.raises(ConfigError, match="pidnet_s_classifier"):
        loss(torch.zeros(2, 3, 4, 4), batch)
    with pytest.raises(ConfigError, match="answers 5 classes"):
        loss(torch.zeros(2, 5), batch)
    with pytest.raises(DataError, match="from 0 to 3"):
        loss(torch.zeros(2, 3), {"target": torch.tensor([0, 3])})
    with pytest.raises(ConfigError, match="label_smoothing"):
        ClassCrossEntropy(classes=3, label_smoothing=1.0)


# The task --------------------------------------------------------------------------------------------


def task_of(classes: int, **options: Any) -> Classification:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes))
    loss = ClassCrossEntropy(classes=classes)
    return Classification(network=network, loss=loss, optim=torch.optim.SGD, classes=classes, **options)


def test_top_1_and_top_5_by_hand() -> None:
    task = task_of(7)
    order = torch.arange(7.0)  # class 6 first, then 5, 4, 3, 2
    task.metrics.update(order.expand(2, 7), torch.tensor([6, 6]))
    task.metrics.update(order.expand(3, 7), torch.tensor([2, 1, 6]))
    values = task.metrics.compute()
    assert float(values["top1"]) == pytest.approx(3 / 5) and float(values["top5"]) == pytest.approx(4 / 5)
    task.use_metrics(top=[2, 3])
    task.metrics.update(order.expand(2, 7), torch.tensor([6, 0]))  # equal counts in the first batch
    task.metrics.update(order.expand(2, 7), torch.tensor([5, 4]))
    values = {key: float(value) for key, value in task.metrics.compute().items()}
    assert values.pop("ece") > 0 and values == {"top2": 0.5, "top3": 0.75}
    assert set(task_of(3).metrics) == {"top1", "ece"}  # the top 5 of 3 are always right
    with pytest.raises(ConfigError, match=r"metrics\.top"):
        task.use_metrics(top=[0])


def test_scores_by_class_by_hand() -> None:
    """Always class 2: both of its pictures are right, the one of class 0 is not, and of class 1 there is none."""
    task = task_of(3).eval()
    with torch.no_grad():
        task.network[2].bias.copy_(torch.tensor([0.0, 0.0, 1e6]))
    task.on_validation_start()
    task.validation_step(
        {"image": torch.zeros(3, 3, 4, 4, dtype=torch.uint8), "target": torch.tensor([2, 0, 2])}, 0
    )
    found = {row["class"]: row for row in task.by_class()}
    assert [(name, row["recall"], row["pictures"]) for name, row in found.items()] == [
        ("class 0", 0.0, 1), ("class 1", None, 0), ("class 2", 1.0, 2)
    ]  # fmt: skip
    assert found["class 2"]["precision"] == pytest.approx(2 / 3) and found["class 2"]["f1"] == pytest.approx(
        0.8
    )
    task.on_validation_start()
    assert [row["pictures"] for row in task.by_class()] == [0, 0, 0], "each validation begins anew"


def test_forward_and_the_shipped_network_agree() -> None:
    task = task_of(3).eval()
    image = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8)
    rgb = image.float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = task.network[2]((rgb.mean(dim=(2, 3)) - mean) / std)  # type: ignore[index]
    torch.testing.assert_close(task(image), expected)
    torch.testing.assert_close(task.deployable()(image), expected)


def test_heads_that_nobody_names_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"task\.head_modules"):
        task_of(3, head_factor=10.0).configure_optimizers()


def test_panels_name_the_classes_and_mark_mistakes() -> None:
    task = task_of(3)
    task.data_recipe = {"dataset": {"names": ["blue", "green", "red"]}}
    batch = {"image": torch.full((2, 3, 10, 20), 7, dtype=torch.uint8), "target": torch.tensor([1, 0])}
    panel = task.panels(batch, torch.tensor([[0.0, 9.0, 0.0], [0.0, 9.0, 0.0]]))["prediction"]
    assert panel.dtype == torch.uint8 and panel.shape == (2, 3, 192 + 40, 192)
    shown = panel[0, :, 48:144]  # 2:1, so the middle half of the square
    assert bool((shown == 7).all()) and bool((panel[0, :, :48] == 255).all())
    right, wrong = panel[0, :, 192:212].float().mean((1, 2)), panel[1, :, 192:212].float().mean((1, 2))
    assert right[1] > right[0] and wrong[0] > wrong[1]  # green and red ink
    expected = card(
        batch["image"][0].permute(1, 2, 0).numpy(), [("100% green", (0, 130, 0)), ("is green", (60, 60, 60))]
    )
    assert torch.equal(panel[0].permute(1, 2, 0), torch.from_numpy(expected))
    assert task.panels({"image": batch["image"]}, torch.zeros(2, 3))["prediction"].shape == (2, 3, 212, 192)


# Runs ------------------------------------------------------------------------------------------------


def test_a_torchvision_network_learns_evaluates_and_loads(blobs: Path, tmp_path: Path) -> None:
    config = config_of(
        blobs,
        tmp_path / "run",
        "trainer.max_epochs=6",
        "optim.lr=0.05",
        "schedule=constant",
        "callbacks=default",
    )
    config["task"]["network"] = SHUFFLE
    result = train.train(config)
    assert result["metrics"]["val/top1"] == 1.0 and (tmp_path / "run/pictures/latest.png").is_file()

    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    task = dvsn.load(path)
    assert isinstance(task, Classification) and task.names == ("blue", "green", "red")
    seen = ImageFolder(root=str(blobs), split="train")
    pictures = torch.stack([torch.from_numpy(seen[i]["photo"]).permute(2, 0, 1) for i in range(len(seen))])
    assert task(pictures).argmax(dim=1).tolist() == seen.targets.tolist()
    torch.testing.assert_close(task.deployable()(pictures), task(pictures))

    # the classes are the checkpoint's, whatever lies beside the pictures that it is measured on
    other = write_blobs(tmp_path / "other", train=1)
    (other / "train").rename(other / "unused")
    for node in ([], ["data=imagefolder", "transform=none", "data.workers=0"]):
        with initialized(conf_dir()):
            options = [f"checkpoint={path}", f"root={other}", f"output={tmp_path}/out", "trainer=cpu", *node]
            plain = OmegaConf.to_container(compose("evaluate", overrides=options), resolve=True)
        values = evaluate.evaluate(plain)  # type: ignore[arg-type]
        assert set(values) == {"top1", "ece"} and values["top1"] == 1.0
    assert (tmp_path / "out" / "grid.png").is_file()


def test_a_killed_run_ends_bit_equal(blobs: Path, tmp_path: Path) -> None:
    options = ["trainer.max_epochs=3", "checkpoint.every_n_steps=1", "data.batch_size=5", "ema=0.9"]
    unbroken = run(config_of(blobs, tmp_path / "unbroken", *options))
    again = config_of(blobs, tmp_path / "broken", *options)
    assert run(again, dies_after=2) is None and run(again, dies_after=4) is None
    resumed = run(again)
    assert unbroken is not None and resumed is not None and resumed["global_step"] == 12
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "averaging_state", "DataModule", "dvsn"):
        left, right = unbroken[part], resumed[part]
        assert equal(left, right), part
    assert resumed["dvsn"]["data"]["dataset"]["names"] == ["blue", "green", "red"]


def test_a_run_is_not_continued_with_other_classes(tmp_path: Path) -> None:
    root = write_blobs(tmp_path / "data", train=2, val=1)
    config = config_of(root, tmp_path / "run", "trainer.max_epochs=1")
    run(config)
    for split in ("train", "val"):
        (root / split / "green").rename(root / split / "azure")
    with pytest.raises(CheckpointError, match="number 0 is the first that differs"):
        run({**config, "trainer": {**config["trainer"], "max_epochs": 2}})


def test_a_classifier_hands_its_trunk_to_a_segmenter(blobs: Path, tmp_path: Path) -> None:
    source = runtime.make_task(config_of(blobs, tmp_path / "run"))
    trainer = runtime.build_trainer(config_of(blobs, tmp_path / "run", "trainer.max_epochs=1"), source)
    trainer.fit(source, runtime.build_data(config_of(blobs, tmp_path / "run")))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    names = [
        "task=segmentation",
        "data=camvid",
        "network.width=4",
        "network.pyramid_width=4",
        "network.head_width=4",
    ]
    target = runtime.make_task(composed([*names, "seed=3"], tmp_path))
    before = {key: value.clone() for key, value in target.networks["network"].state_dict().items()}
    start_from(target, path)
    given, own = source.networks["network"].state_dict(), target.networks["network"].state_dict()
    shared = [key for key in own if key in given and given[key].shape == own[key].shape]
    assert all(torch.equal(own[key], given[key]) for key in shared)
    assert all(torch.equal(own[key], before[key]) for key in own if key not in shared)
    assert len(shared) == 302  # as many as of the published file
    assert {key.partition(".")[0] for key in own if key not in shared} == {
        "layer3_d", "layer4_d", "layer5_d", "diff3", "diff4", "spp", "dfm", "final_layer", "seghead_p", "seghead_d",
    }  # fmt: skip
    foreign = runtime.make_task(composed([*names[:2], "network=bisenetv2"], tmp_path))
    with pytest.raises(CheckpointError, match="same family"):
        start_from(foreign, path)


def test_the_recipe_is_the_papers(tmp_path: Path) -> None:
    config = composed(["experiment=pidnet_s_imagenet"], tmp_path)
    task, optim = runtime.make_task(config), config["task"]["optim"]
    assert (optim["lr"], optim["momentum"], optim["weight_decay"]) == (0.1, 0.9, 1e-4)
    schedule = task.schedule
    rates = [
        schedule.factor(epoch * 10, steps_per_epoch=10, total_steps=900) for epoch in (0, 29, 30, 60, 89)
    ]
    assert rates == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert config["trainer"]["max_epochs"] == 90 and config["data"]["batch_size"] == 256
    assert isinstance(task, Classification) and task.classes == 1000
