"""A task that is taught: what is joined, what is frozen, what is saved, and what is refused before it starts."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import dvsn
from dvsn import train
from dvsn.config import rules as checks
from dvsn.distill.distiller import Part
from dvsn.distill.teacher import Teacher, answer
from dvsn.engine import methods as making
from dvsn.engine import rehearsal, teachers, teaching
from dvsn.engine import trainer as runtime
from dvsn.engine.resume import settle
from dvsn.errors import CheckpointError, ConfigError
from dvsn.report import runs
from dvsn.tasks.finite import NotFinite
from dvsn.weights import read_checkpoint
from tests.support.distill_stubs import (
    SMALL,
    ClassesOnly,
    First,
    Hint,
    Second,
    Soft,
    distilled,
    fit,
    node,
    prepare,
    save_teacher,
)  # fmt: skip
from tests.support.resuming import Died, Dies, equal
from tests.support.tiny import composed

pytestmark = pytest.mark.usefixtures("stubs")


@pytest.fixture(scope="module")
def teacher(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.ckpt"
    config = distilled(blobs, path.parent, None, {}, "network=resnet14", "task.mean=[0.1,0.2,0.3]")
    return save_teacher(config, path)


class Watch(pl.Callback):
    """What a run looked like from beside it."""

    def __init__(self) -> None:
        self.before: dict[str, Any] = {}
        self.steps: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Any, task: Any) -> None:
        self.teacher = task.distiller.teachers[0]
        self.before = copy.deepcopy(self.teacher.holder.state_dict())
        self.parameters = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        network = task.network
        self.steps.append(
            {
                "stage": task.distiller.stage,
                "terms": sorted(name for name in trainer.logged_metrics if name.startswith("train/")),
                "rate": trainer.optimizers[0].param_groups[0]["lr"],
                "training": {name for name, m in network.named_modules() if m.training},
                "state": {key: value.clone() for key, value in task.state_dict().items()},
            }
        )


# A run -----------------------------------------------------------------------------------------------


def test_two_methods_train_the_student_and_nothing_of_the_teacher(
    blobs: Path, teacher: Path, tmp_path: Path
) -> None:
    methods = {"hint": node(Hint, weight=2.0, taps="stages"), "soft": node(Soft, weight=0.5)}
    watch = Watch()
    config = distilled(blobs, tmp_path, str(teacher), methods)
    task, trainer, saved = fit(config, watch)
    distiller = task.distiller
    assert not any("teacher" in name for name, _ in task.named_modules())
    ours = {id(p) for p in [*task.network.parameters(), *distiller.methods.parameters()]}
    assert {id(p) for p in watch.parameters} == ours and len(watch.parameters) == len(ours)
    after = watch.teacher.holder.state_dict()
    assert all(torch.equal(after[key], value) for key, value in watch.before.items())
    assert all(p.grad is None and not p.requires_grad for p in watch.teacher.holder.parameters())
    assert not any(m.training for m in watch.teacher.holder.modules())
    key = "distiller.methods.hint.bridges.0.weight"
    assert not torch.equal(watch.steps[0]["state"][key], watch.steps[1]["state"][key])
    logged = {name for name in trainer.callback_metrics if name.startswith("train/")}
    assert logged == {"train/cross_entropy", "train/hint", "train/soft_near", "train/soft_far"}
    assert distiller.method("hint").seen.tolist() == [1.0] * 12  # twice 0.5, by the index of each picture
    assert distiller.method("hint").dtypes == {torch.float32}
    keys = {key.split(".")[0] for key in saved["state_dict"]}
    assert keys == {"network", "distiller"}
    assert saved["dvsn"]["distill"] == {"hint": {"weight": 2.0}, "soft": {"weight": 0.5}}
    hooks = [m for m in task.network.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks and not task.deployable()._forward_hooks


def test_the_student_alone_is_what_it_would_be_without_distillation(
    blobs: Path, teacher: Path, tmp_path: Path
) -> None:
    """A method of weight 0 changes no bit of the student."""
    plain = distilled(blobs, tmp_path / "plain", None, {})
    taught = distilled(
        blobs, tmp_path / "taught", str(teacher), {"hint": node(Hint, weight=0.0, taps="last")}
    )
    states = [fit(config)[2]["state_dict"] for config in (plain, taught)]
    assert all(torch.equal(states[1][key], value) for key, value in states[0].items())


def test_the_checkpoint_is_a_student_without_its_teacher(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    own = tmp_path / "teacher.ckpt"
    own.write_bytes(teacher.read_bytes())
    task, _, _ = fit(distilled(blobs, tmp_path / "run", str(own), {"hint": node(Hint, taps="last")}))
    own.unlink()
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    loaded = dvsn.load(path)
    assert loaded.distiller is None and all(key.startswith("network.") for key in loaded.state_dict())
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), task.eval()(image))
        assert torch.equal(loaded.deployable()(image), loaded(image))
    assert "teacher" not in str(sorted(read_checkpoint(path)["dvsn"]))


def test_a_whole_run_measures_its_teacher_and_leaves_what_the_report_needs(
    blobs: Path, teacher: Path, tmp_path: Path
) -> None:
    config = distilled(
        blobs, tmp_path, str(teacher), {"soft": node(Soft, weight=0.5)}, "trainer.max_epochs=1"
    )
    result = train.train(config)
    expected = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    judge = dvsn.load(teacher)
    score = expected.validate(judge, runtime.build_data(config), verbose=False)[0]["val/top1"]
    assert result["teacher_score"] == pytest.approx(score)
    assert result["epoch_seconds"] > 0 and result["peak_memory_bytes"] > 1e6
    found = runs.read_runs(tmp_path)
    (run,) = found.runs
    assert (run.method, run.weight, run.teacher) == ("soft", "0.5", result["teacher_score"])
    assert not found.open and not found.notes


def test_a_teacher_is_measured_in_float32_whatever_the_student_learns_in(
    blobs: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, seen = runtime.build_trainer, []

    def watched(*arguments: Any, **options: Any) -> pl.Trainer:
        trainer = build(*arguments, **options)
        seen.append((options.get("fitting", True), trainer.precision))
        return trainer

    for module in (runtime, teachers):
        monkeypatch.setattr(module, "build_trainer", watched)
    words = ["trainer.max_epochs=1", "trainer.precision=bf16-mixed"]
    result = train.train(distilled(blobs, tmp_path, str(teacher), {"soft": node(Soft)}, *words))
    assert sorted(seen) == [(False, "32-true"), (True, "bf16-mixed")]
    assert result["measured"]["precision"] == "bf16-mixed", "of the student's own scores"


def test_a_teacher_may_be_gone_at_the_end(
    blobs: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.ckpt"
    mine.write_bytes(teacher.read_bytes())
    fitting = pl.Trainer.fit
    monkeypatch.setattr(pl.Trainer, "fit", lambda *a, **k: (mine.unlink(), fitting(*a, **k))[1])
    config = distilled(blobs, tmp_path, str(mine), {"soft": node(Soft)}, "trainer.max_epochs=1")
    assert train.train(config)["teacher_measured_by"] and (Path(config["run_dir"]) / "result.json").is_file()


def test_kept_answers_train_the_same_student_and_ask_once(
    blobs: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    call = Teacher.__call__
    monkeypatch.setattr(
        Teacher,
        "__call__",
        lambda self, shown, batch: (asked.append(len(shown)), call(self, shown, batch))[1],
    )
    methods = {"soft": node(Soft)}
    plain = fit(distilled(blobs, tmp_path / "plain", str(teacher), methods))[2]
    assert asked == [6] * 4  # two batches in each of two epochs
    asked.clear()
    kept = f"distillation.cache={tmp_path / 'answers'}"
    for name, count in (("first", 2), ("second", 0)):
        task, _, found = fit(distilled(blobs, tmp_path / name, str(teacher), methods, kept))
        assert len(asked) == count
        for key, value in plain[
            "state_dict"
        ].items():  # an answer's last bit depends on its place in the batch
            torch.testing.assert_close(found["state_dict"][key], value, rtol=1e-4, atol=1e-6)
        assert task.distiller.cache.count == 12
        asked.clear()
    assert ("cache", f"{task.distiller.cache.folder}, 12 of 12 answers known") in teaching.describe(
        task.distiller
    )
    other = save_teacher(distilled(blobs, tmp_path, None, {}, "network.depth=14"), tmp_path / "other.ckpt")
    prepare(distilled(blobs, tmp_path / "third", str(other), methods, kept))
    assert len(list((tmp_path / "answers").iterdir())) == 2, "another teacher, other answers"


def test_answers_that_cannot_be_kept(
    blobs: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = f"distillation.cache={tmp_path / 'answers'}"
    with pytest.raises(ConfigError, match="keeps answers alone, and hint wants the teacher's features"):
        prepare(distilled(blobs, tmp_path, str(teacher), {"hint": node(Hint, taps="last")}, kept))
    config = distilled(blobs, tmp_path, str(teacher), {"soft": node(Soft)}, kept)
    flip = {"_target_": "albumentations.HorizontalFlip", "p": 0.5}
    changing = {**config["data"], "transform": {**config["data"]["transform"], "train": [flip]}}
    with pytest.raises(ConfigError, match=r"change from epoch to epoch by HorizontalFlip with p=0\.5"):
        prepare({**config, "data": changing})
    flip["p"] = 1e-6  # which no look at some items would find
    with pytest.raises(ConfigError, match="change from epoch to epoch by HorizontalFlip with p=1e-06"):
        prepare({**config, "data": changing})
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ConfigError, match=r"need 144 bytes, and .* has 10 free"):  # 12 items of 3 classes
        prepare(config)


def test_a_sweep_measures_its_teacher_once(
    blobs: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(number: int, *more: str) -> float:
        folder = tmp_path / "sweep" / str(number)
        config = distilled(blobs, folder, str(teacher), {"soft": node(Soft)}, "trainer.max_epochs=1", *more)
        folder = Path(config["run_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.json").write_text("{}")
        return train.train(config)["teacher_score"]

    asked = []
    validate = pl.Trainer.validate
    monkeypatch.setattr(pl.Trainer, "validate", lambda *a, **k: (asked.append(1), validate(*a, **k))[1])
    first = run(0)
    assert run(1, "seed=3") == first and len(asked) == 1
    run(2, "data.eval_batch_size=1")
    assert len(asked) == 2, "evaluated in another way, so measured again"
    other = torch.load(teacher, weights_only=True)
    other["state_dict"] = {key: value * 0 for key, value in other["state_dict"].items()}
    teacher = tmp_path / "other.ckpt"
    torch.save(other, teacher)
    run(3)
    assert len(asked) == 3, "another teacher"


def test_a_distilled_run_resumes_with_the_same_bits(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    methods = {"hint": node(Hint, taps="stages"), "soft": node(Soft, start=1, ramp=2)}
    more = ("trainer.max_epochs=3", "checkpoint.every_n_steps=1", "ema=0.9")
    whole = fit(distilled(blobs, tmp_path / "whole", str(teacher), methods, *more))[2]
    broken = distilled(blobs, tmp_path / "broken", str(teacher), methods, *more)
    for step in (1, 3):
        with pytest.raises(Died):
            fit(broken, Dies(step))
    resumed = fit(broken)[2]
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "current_model_state"):
        assert (key in whole) == (key in resumed)
        assert equal(whole.get(key), resumed.get(key)), key
    averaged, current = resumed["state_dict"], resumed["current_model_state"]
    same = {key: equal(averaged[key], current[key]) for key in averaged if averaged[key].is_floating_point()}
    apart = {key for key in same if key.startswith("distiller.")}
    assert apart and all(same[key] for key in apart), "what is not shipped is not averaged"
    assert not any(same[key] for key in same if key.endswith("weight") and key not in apart)


def test_weights_grow_and_stop() -> None:
    part = Part(weight=2.0, start=2, end=6, ramp=4)
    assert [part.factor(epoch) for epoch in range(8)] == [0, 0, 0.25, 0.5, 0.75, 1.0, 0, 0]
    assert Part(weight=1.0).factor(0) == 1.0 and Part(weight=1.0, ramp=20).factor(0) == 0.05


def test_a_method_that_does_not_count_is_not_asked(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    methods = {"soft": node(Soft, start=1, end=2)}
    task, _, _ = fit(distilled(blobs, tmp_path, str(teacher), methods, "trainer.max_epochs=3"))
    assert task.distiller.method("soft").calls == 2  # the two batches of epoch 1
    assert task.distiller.needs_unused_parameters


def test_without_labels_the_task_is_left_out(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    config = distilled(blobs, tmp_path, str(teacher), {"soft": node(Soft, task_weight=0)})
    task, data = prepare(config)
    task.distiller.begin("cpu")
    batch = rehearsal.sample(data)
    del batch["target"]
    with task.distiller.taps:
        terms = task.train().learn(batch)
    assert set(terms) == {"soft_near", "soft_far"}
    task.distiller.epoch = 7
    task.distiller.parts["soft"] = Part(weight=1.0, end=3)
    with pytest.raises(ConfigError, match="nothing is learned in epoch 7"):
        task.learn(batch)


def test_methods_are_asked_in_float32_without_autocast(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    methods = {"hint": node(Hint, taps="stages")}
    task, _, _ = fit(distilled(blobs, tmp_path, str(teacher), methods, "trainer.precision=bf16-mixed"))
    assert task.distiller.method("hint").dtypes == {torch.float32}
    assert task.distiller.method("hint").autocast is False


def test_pairs_are_given_on_the_command_line(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    given = [f"data.root={blobs}", "distill=fitnet", f"teacher={teacher}"]
    pairs = "distill.fitnet.taps=[[layer1,layer2],[layer2,layer3]]"
    config = composed([*SMALL, *given, pairs, "distill.fitnet.method.hint=all"], tmp_path)
    checks.validate(config, composed([*SMALL, *given], tmp_path))
    task, _ = prepare(config)
    assert task.distiller.parts["fitnet"].teacher == ("layer2", "layer3")
    broken = composed([*SMALL, *given, "distill.fitnet.taps=[[layer1,layer2],[layer2]]"], tmp_path)
    with pytest.raises(ConfigError, match=r"distill\.fitnet\.taps: found .*expected null, a role, or"):
        checks.check_options(broken)


def test_a_task_weight_is_that_of_a_method_alone() -> None:
    """Published: 0.1 CE + 0.9 KD, and 1 CE + 1 KD + 0.8 CRD."""
    kd, zero = {"kd": {"task_weight": 0.1}}, {"simkd": {"task_weight": 0.0}}
    assert making.task_weight(kd, {}) == 0.1
    assert making.task_weight({**kd, "crd": {}}, {}) == 1.0
    assert making.task_weight({**kd, "norm": {"task_weight": 0.1}}, {}) == 1.0
    assert making.task_weight({**kd, "crd": {}}, {"task_weight": 0.7}) == 0.7
    assert making.task_weight({"crd": {}}, {"task_weight": None}) == 1.0
    assert making.task_weight({**kd, "crd": {}}, {}, in_company=True) == 0.1
    assert making.task_weight(zero, {}) == making.task_weight({**zero, **kd, "at": {}}, {}) == 0.0


def test_labels_count_in_full_beside_kd_and_another(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    """The shipped files on the command line: the cross-entropy of the labels by hand."""
    more = ["distill.crd.method.negatives=4", f"teacher={teacher}", f"data.root={blobs}"]
    for methods, weight in (("kd", 0.1), ("[kd,crd]", 1.0)):
        options = [*more[methods == "kd" :], *SMALL, f"distill={methods}"]
        task, data = prepare(composed(options, tmp_path))
        task.distiller.begin("cpu")
        batch = rehearsal.sample(data) | {"target": torch.tensor([1]), "index": torch.tensor([0])}
        task.eval()
        with torch.no_grad():
            plain = torch.nn.functional.cross_entropy(task.network(task.see(batch["image"])), batch["target"])
            terms = task.learn(batch)
        torch.testing.assert_close(next(iter(terms.values())), weight * plain)


def test_a_run_of_an_earlier_version_goes_on_with_its_weight(
    blobs: Path, teacher: Path, tmp_path: Path
) -> None:
    """Its checkpoint does not say what the labels count: they counted 0.1 beside kd and another method."""
    more = [f"teacher={teacher}", f"data.root={blobs}", "distill=[kd,at]"]
    task, _ = prepare(composed([*SMALL, *more], tmp_path))
    content: dict[str, Any] = {"state_dict": {}}
    task.on_save_checkpoint(content)
    assert content["dvsn"]["task_weight"] == 1.0
    task.on_load_checkpoint(content)
    assert task.distiller.task_weight == 1.0
    del content["dvsn"]["task_weight"]
    task.on_load_checkpoint(content)
    assert task.distiller.task_weight == 0.1


def test_a_run_of_an_earlier_version_says_which_taps_it_had(
    blobs: Path, teacher: Path, tmp_path: Path
) -> None:
    more = [
        *SMALL,
        f"teacher={teacher}",
        f"data.root={blobs}",
        "distill=cwd_features",
        "trainer.max_epochs=1",
    ]
    config = composed(more, tmp_path)
    task, _, content = fit(config)
    settle(tmp_path / "checkpoints" / "last.ckpt", config, task)
    for key in ("task_weight", "config", "ran"):
        content["dvsn"].pop(key, None)
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(CheckpointError, match=r"Continue with distill\.cwd_features\.taps=last,"):
        settle(tmp_path / "old.ckpt", config, task)
    settle(tmp_path / "old.ckpt", composed([*more, "distill.cwd_features.taps=last"], tmp_path), task)


# Teachers --------------------------------------------------------------------------------------------


def test_a_teacher_sees_with_its_own_eyes(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    """Its own mean and size, and run once."""
    config = distilled(blobs, tmp_path, str(teacher), {"soft": node(Soft)}, "distillation.size=[16,16]")
    task, _ = prepare(config)
    seen: list[torch.Tensor] = []
    (each,) = task.distiller.teachers
    each.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    task.distiller.begin("cpu")
    image = torch.full((2, 3, 32, 32), 51, dtype=torch.uint8)  # 0.2
    task.train().learn({"image": image, "target": torch.tensor([0, 1]), "index": torch.tensor([0, 1])})
    assert len(seen) == 1 and seen[0].shape == (2, 3, 16, 16)
    std = torch.tensor([0.229, 0.224, 0.225])
    expected = ((0.2 - torch.tensor([0.1, 0.2, 0.3])) / std).view(1, 3, 1, 1).expand(2, 3, 16, 16)
    torch.testing.assert_close(seen[0], expected, atol=1e-6, rtol=1e-5)
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    output, _ = each(image, {})
    small = torch.nn.functional.interpolate(
        each.holder.normalise(image), size=(16, 16), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(output, each.network(small), atol=1e-6, rtol=1e-5)


def test_outputs_of_several_teachers_are_averaged(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    z = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 0.0]])
    teachers = [Teacher(nn.Identity(), nn.Identity(), lambda _, each=each: each, name="x") for each in z]
    shown = torch.zeros(1)
    shares, _ = answer(teachers, shown, {}, kind="classes", average="probabilities")
    expected = (torch.tensor([[0.5, 0.5]]) + torch.tensor([[3.0, 0.0]]).softmax(1)) / 2
    torch.testing.assert_close(shares.softmax(1), expected)
    torch.testing.assert_close(shares.exp(), expected)
    assert answer(teachers, shown, {}, kind="classes", average="logits")[0].tolist() == [[1.5, 0.0]]
    assert answer(teachers, shown, {}, kind="points", average="probabilities")[0].tolist() == [[1.5, 0.0]]
    both = [str(teacher), str(teacher)]
    task, _ = prepare(distilled(blobs, tmp_path, both, {"soft": node(Soft)}))
    assert len(task.distiller.teachers) == 2
    with pytest.raises(ConfigError, match=r"distill.hint.taps: with 2 teachers only outputs"):
        prepare(distilled(blobs, tmp_path, both, {"hint": node(Hint, taps="last")}))


def test_a_network_of_ones_own_teaches(blobs: Path, tmp_path: Path) -> None:
    from dvsn.networks.cifar_resnet import CifarResNet

    torch.save(CifarResNet(classes=3, depth=14).state_dict(), tmp_path / "own.pth")
    config = distilled(blobs, tmp_path, None, {"hint": node(Hint, taps=[["layer1", "layer1.0.conv1"]])})
    config["distillation"] |= {
        "network": {"_target_": "dvsn.networks.cifar_resnet.CifarResNet", "classes": 3, "depth": 14},
        "weights": str(tmp_path / "own.pth"),
        "mean": [0.0, 0.0, 0.0],
        "channels": "bgr",
    }
    checks.check_options(config)
    task, _ = prepare(config)
    (each,) = task.distiller.teachers
    normalise = each.holder.normalise
    assert normalise.channels == "bgr" and normalise.mean.sum() == 0
    torch.testing.assert_close(normalise.std, task.normalise.std)
    config["distillation"]["network"]["depth"] = 20
    with pytest.raises(CheckpointError, match=r"own\.pth"):
        prepare(config)


def test_a_teacher_that_is_not_finite_stops_the_run(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    content = torch.load(teacher, weights_only=True)
    content["state_dict"]["network.fc.weight"][:] = 3e38  # finite, and its answers are not
    torch.save(content, tmp_path / "overflows.ckpt")
    with pytest.raises(NotFinite, match="the teacher's answer is not finite") as error:
        fit(distilled(blobs, tmp_path, str(tmp_path / "overflows.ckpt"), {"soft": node(Soft)}))
    assert str(error.value).count("not finite") == 1
    content["state_dict"]["network.fc.bias"][0] = float("nan")
    torch.save(content, tmp_path / "nan.ckpt")
    with pytest.raises(CheckpointError, match=r"nan\.ckpt: 1 of \d+ tensors .* not finite"):
        fit(distilled(blobs, tmp_path, str(tmp_path / "nan.ckpt"), {"soft": node(Soft)}))


# Stages ----------------------------------------------------------------------------------------------


STAGES = {
    "first": node(First, taps=[["layer2", "layer2"]], epochs=2, weight=3.0),
    "second": node(Second, taps="last", epochs=1),
}


def staged(blobs: Path, folder: Path, teacher: Path, *more: str) -> dict[str, Any]:
    options = (
        "trainer.max_epochs=2",
        "checkpoint.every_n_steps=1",
        "schedule=step",
        "schedule.milestones=[1]",
    )
    return distilled(blobs, folder, str(teacher), copy.deepcopy(STAGES), *options, *more)


def test_initial_stages_come_first_and_train_what_they_say(
    blobs: Path, teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch()
    caplog.set_level(logging.INFO)
    config = staged(blobs, tmp_path, teacher, "distillation.stage_lr=0.003")
    start = {key: value.clone() for key, value in prepare(config)[0].state_dict().items()}
    _, trainer, saved = fit(config, watch)
    stages = [step["stage"] for step in watch.steps]
    assert stages == ["first"] * 4 + ["second"] * 2 + [None] * 4
    assert trainer.max_epochs == 5  # 2 + 1 on top of 2
    rates = [round(step["rate"], 6) for step in watch.steps]
    assert rates == [0.003] * 5 + [0.01] * 2 + [0.001] * 3  # after each step: that of the next
    one, two = watch.steps[0], watch.steps[5]
    changed = {key for key, value in watch.steps[3]["state"].items() if not torch.equal(value, start[key])}
    parts = ("network.conv1", "network.bn1", "network.layer1", "network.layer2", "distiller.methods.first.b")
    assert changed == {key for key in start if key.startswith(parts)}
    assert "layer2.0.bn2" in one["training"] and not {"layer3.0.bn1", "fc", ""} & one["training"]
    assert not two["training"]
    later = {
        key for key, value in two["state"].items() if not torch.equal(value, watch.steps[3]["state"][key])
    }
    assert later == {"distiller.methods.second.code.weight", "distiller.methods.second.code.bias"}
    last = watch.steps[-1]["state"]
    still = {key for key, value in last.items() if torch.equal(value, two["state"][key])}
    assert (
        "distiller.methods.second.code.weight" in still
        and "distiller.methods.first.bridges.0.weight" in still
    )
    assert "network.fc.weight" not in still and "distiller.methods.second.follow.weight" not in still
    assert "" in watch.steps[-1]["training"]
    assert one["terms"] == ["train/first"] and "train/cross_entropy" in watch.steps[-1]["terms"]
    assert saved["dvsn"]["stages_finished"] == ["first", "second"]
    assert (
        "epoch 2: second, initial stage, to epoch 3 of 3" in caplog.text
        and "epoch 3: training" in caplog.text
    )


def test_the_schedule_starts_after_the_stages(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    from dvsn.optim.schedules import Step

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = Step(milestones=[1]).attach(
        optimizer, steps_per_epoch=2, total_steps=4, initial_steps=3, initial_factor=0.5
    )
    rates = []
    for _ in range(7):
        rates.append(round(optimizer.param_groups[0]["lr"], 6))
        optimizer.step()
        schedule.step()
    assert rates == [0.05, 0.05, 0.05, 0.1, 0.1, 0.01, 0.01]


def test_the_optimiser_forgets_between_stages(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    class Momentum(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[bool] = []

        def on_before_optimizer_step(self, trainer: Any, task: Any, optimizer: Any) -> None:
            self.seen.append(bool(optimizer.state))

    momentum = Momentum()
    fit(staged(blobs, tmp_path, teacher), momentum)
    assert momentum.seen == [False, True, True, True, False, True, False, True, True, True]


@pytest.mark.parametrize("steps", [(1,), (3,), (4, 1), (5,), (6,), (7, 1)])
def test_a_run_of_stages_resumes_with_the_same_bits(
    blobs: Path, teacher: Path, tmp_path: Path, steps: tuple[int, ...]
) -> None:
    """Killed in the middle of either stage, and at their borders."""
    whole = fit(staged(blobs, tmp_path / "whole", teacher))[2]
    broken = staged(blobs, tmp_path / "broken", teacher)
    for step in steps:
        with pytest.raises(Died):
            fit(broken, Dies(step))
    task, _, resumed = fit(broken)
    assert not task.distiller.method("first").bridges[0].weight.requires_grad
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert equal(whole[key], resumed[key]), key


def test_stages_within_the_epochs(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    config = staged(blobs, tmp_path, teacher, "distillation.on_top=false")
    with pytest.raises(
        ConfigError,
        match=r"found 2, and the initial stages .* alone take 3\. Set trainer\.max_epochs=4 or more",
    ):
        fit(config)


# Refused ---------------------------------------------------------------------------------------------


def test_methods_and_teacher_go_together(blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"distill: soft needs a teacher. Set teacher="):
        checks.check_options(distilled(blobs, tmp_path, None, {"soft": node(Soft)}))
    with pytest.raises(
        ConfigError, match=r"nothing is learned from it\. Choose a method such as distill=kd, or distill=none"
    ):
        checks.check_options({**distilled(blobs, tmp_path, "x.ckpt", {}), "distill": None})
    checks.check_options(distilled(blobs, tmp_path, "x.ckpt", {}))  # distill=none: the student alone
    for wrong in (3, ["x.ckpt", None], {"path": "x.ckpt"}):
        with pytest.raises(ConfigError, match=r"^teacher: found .* expected the path of a checkpoint"):
            checks.check_options(distilled(blobs, tmp_path, wrong, {"soft": node(Soft)}))


def test_methods_are_not_run_in_half_precision(blobs: Path, tmp_path: Path) -> None:
    config = distilled(blobs, tmp_path, "x.ckpt", {"soft": node(Soft)}, "trainer.precision=bf16-true")
    with pytest.raises(ConfigError, match=r"trainer\.precision: found bf16-true"):
        checks.check_options(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": -1}, "distill.soft.weight: found -1"),
        ({"weigth": 1}, "distill.soft.weigth: unknown key. Did you mean 'weight'"),
        ({"start": 3, "end": 3}, "distill.soft.end: found 3, expected null, or an epoch after start"),
        ({"ramp": 0.5}, "distill.soft.ramp: found 0.5"),
        ({"taps": [["a"]]}, "distill.soft.taps: found"),
        ({"method": None}, "distill.soft.method: is missing"),
    ],
)
def test_options_without_meaning(blobs: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = distilled(blobs, tmp_path, "x.ckpt", {"soft": {**node(Soft), **change}})
    with pytest.raises(ConfigError, match=message):
        checks.check_options(config)


def test_a_teacher_that_does_not_fit(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        prepare(distilled(blobs, tmp_path, str(tmp_path / "none.ckpt"), {"soft": node(Soft)}))
    other = save_teacher(distilled(blobs, tmp_path, None, {}, "data.classes=4"), tmp_path / "four.ckpt")
    with pytest.raises(ConfigError, match="answers with 4, the student with 3; expected as many classes"):
        prepare(distilled(blobs, tmp_path, str(other), {"soft": node(Soft)}))
    content = torch.load(teacher, weights_only=True)
    content["dvsn"]["data"]["dataset"]["names"] = ["green", "blue", "red"]
    torch.save(content, tmp_path / "turned.ckpt")
    with pytest.raises(ConfigError, match="another order: number 0 is 'green' there and 'blue' here"):
        prepare(distilled(blobs, tmp_path, str(tmp_path / "turned.ckpt"), {"soft": node(Soft)}))


def test_taps_that_do_not_fit(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    for pairs, message in (
        (
            [["layr2", "layer2"]],
            "distill.hint.taps: CifarResNet has no module 'layr2'. Did you mean 'layer2'",
        ),
        ("stage", "distill.hint.taps: found 'stage'. Did you mean 'stages'"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(distilled(blobs, tmp_path, str(teacher), {"hint": node(Hint, taps=pairs)}))


def test_a_method_of_another_kind_of_answer_lists_those_that_fit(blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"distill\.soft: reads classes, and this task answers with heatmaps. Methods that fit: ",
    ):
        making.require_reads("soft", ClassesOnly, "heatmaps")


@pytest.mark.parametrize("name", ["cc", "pkt", "rkd", "sp"])
def test_relations_of_one_item_are_refused(name: str, blobs: Path, teacher: Path, tmp_path: Path) -> None:
    given = [f"distill={name}", f"teacher={teacher}"]
    config = composed([*SMALL, f"data.root={blobs}", *given, "data.batch_size=1"], tmp_path)
    with pytest.raises(ConfigError, match=rf"distill\.{name}: relates .* data\.batch_size is 1"):
        prepare(config)
    prepare(composed([*SMALL, f"data.root={blobs}", *given, "data.batch_size=2"], tmp_path))


def test_a_bank_too_large_is_said_with_its_bytes(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its memory banks need 1,152,921,504,606,846,976 bytes"):
        prepare(distilled(blobs, tmp_path, str(teacher), {"hint": node(Hint, taps="last", momentum=2.0)}))


def test_a_resumed_run_keeps_its_methods(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    from dvsn.engine.resume import settle

    config = distilled(
        blobs, tmp_path, str(teacher), {"hint": node(Hint, taps="last")}, "trainer.max_epochs=1"
    )
    fit(config)
    path = tmp_path / "checkpoints" / "last.ckpt"
    settle(path, config, runtime.make_task(config))
    with pytest.raises(CheckpointError, match=r"trained with distill=\[hint\], found distill=\[\]"):
        settle(path, {**config, "distill": None}, runtime.make_task(config))


def test_data_that_is_made_on_first_use_is_made_first(
    blobs: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = distilled(blobs, tmp_path, str(teacher), {"soft": node(Soft)})
    data, task, opened = runtime.build_data(config), runtime.make_task(config), []
    monkeypatch.setattr(data, "prepare_data", lambda: opened.append(dict(data.datasets)))
    teaching.distil(task, config, data)
    assert opened == [{}] and set(data.datasets) == {"train", "val"}


def test_facts_are_those_of_the_training_set(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    config = distilled(
        blobs, tmp_path, str(teacher), {"hint": node(Hint, taps="last")}, "data.train_samples=7"
    )
    facts = prepare(config)[0].distiller.method("hint").facts
    assert facts.samples == 7 and facts.classes == 3 and facts.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
