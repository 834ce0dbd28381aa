"""Checkpoint files: whole or absent, data and never code, and refusals that say what is wrong."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dvsn
from dvsn.engine import trainer as runtime
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.engine.resume import find_resume
from dvsn.errors import CheckpointError, UserError
from dvsn.tasks.recipe import read_recipe
from dvsn.weights import read_checkpoint, require_equal
from tests.support.tiny import TINY, composed, write_pairs

Content = dict[str, Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run: checkpoints/last.ckpt, best.ckpt and last.safetensors."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    pairs = write_pairs(tmp_path_factory.mktemp("pairs"), train=4, val=2)
    config = composed(
        [
            *TINY,
            f"data.root={pairs}",
            "network.norm=batch",
            "trainer.max_epochs=1",
            "checkpoint.weights=true",
        ],
        folder,
    )
    task = runtime.make_task(config)
    runtime.build_trainer(config, task).fit(task, runtime.build_data(config))
    return folder


@pytest.fixture
def good(trained: Path, tmp_path: Path) -> Path:
    """A copy of its last checkpoint, to be spoiled."""
    return Path(shutil.copy(trained / "checkpoints" / "last.ckpt", tmp_path / "good.ckpt"))


def changed(path: Path, change: Callable[[Content], Any]) -> Path:
    """The checkpoint with a change made to its content."""
    content = read_checkpoint(path)
    change(content)
    torch.save(content, path)
    return path


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


# Writing ---------------------------------------------------------------------------------------------


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_inside_torch(content: Any, file: Any) -> Any:
    """What torch's own writer makes of it: a RuntimeError with the reason as its context."""
    file.write(b"half of a checkpoint")
    try:
        full_disk()
    except OSError:
        raise RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 64 vs 0")  # noqa: B904


FAULTS = {
    "torch.save": full_disk,
    "torch.save, as torch reports it": full_disk_inside_torch,
    "os.fsync": full_disk,
    "pathlib.Path.replace": full_disk,
}


@pytest.mark.parametrize("place", FAULTS)
def test_a_failed_write_leaves_the_older_file(
    place: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"the older one")
    monkeypatch.setattr(place.partition(",")[0], FAULTS[place])
    with pytest.raises(OSError, match="No space left") as caught:
        AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(3)}, file)
    assert caught.value.errno == errno.ENOSPC
    assert file.read_bytes() == b"the older one" and not leftovers(tmp_path)


@pytest.mark.parametrize("inside", [False, True])
def test_a_worker_that_ends_while_a_file_is_written_is_no_failed_write(
    inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch raises it wherever the main process is, here also within torch's writer."""
    ended = "DataLoader worker (pid 7) is killed by signal: Terminated."

    def saved(*_: Any) -> None:
        try:
            raise RuntimeError(ended)
        except RuntimeError:
            if inside:
                raise RuntimeError("PytorchStreamWriter failed writing file data/0")  # noqa: B904
            raise

    monkeypatch.setattr("torch.save", saved)
    with pytest.raises(RuntimeError, match="killed by signal: Terminated"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt")


def test_an_interrupted_write_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"the older one")

    def interrupted(content: Any, target: Any) -> None:
        target.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("torch.save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({}, file)
    assert file.read_bytes() == b"the older one" and not leftovers(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_torch_on_a_device_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real error of a real full device, through torch's writer."""
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args: real(Path("/dev/full"), *args))
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(100_000)}, tmp_path / "last.ckpt")
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize("place", ["torch.save, as torch reports it", "os.fsync"])
def test_a_full_disk_while_training_says_so(
    place: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_pairs(tmp_path / "pairs", train=3, val=1)
    config = composed(
        [*TINY, f"data.root={pairs}", "checkpoint.every_n_steps=1", "trainer.max_epochs=2"], tmp_path
    )
    task = runtime.make_task(config)
    trainer = runtime.build_trainer(config, task)
    real, calls = AtomicCheckpointIO.save_checkpoint, []

    def second_is_full(self: Any, *args: Any, **options: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            monkeypatch.setattr(place.partition(",")[0], FAULTS[place])
        real(self, *args, **options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", second_is_full)
    with pytest.raises(
        UserError, match=r"last\.ckpt: .*the disk is full.*older checkpoint .* intact.*resume=auto"
    ):
        trainer.fit(task, runtime.build_data(config))
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 1
    assert not leftovers(tmp_path / "checkpoints")


# Reading ---------------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """One bit of a weight: torch itself would load it."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
    content[largest.header_offset + 200 + largest.file_size // 2] ^= 1
    path.write_bytes(content)


def foreign_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (truncated, "truncated|damaged"),
    "flipped bit": (flipped, "altered on disk"),
    "empty": (lambda path: path.write_bytes(b""), r"not a readable checkpoint \(0 bytes\)"),
    "text": (lambda path: path.write_text("epoch,loss\n1,0.5\n"), "not a checkpoint: 17 bytes .*b'epoch,lo'"),
    "random": (lambda path: path.write_bytes(bytes(range(256)) * 40), "not a checkpoint"),
    "a foreign archive": (lambda path: foreign_archive(path), "not a readable checkpoint|refused"),
    "a list": (lambda path: torch.save([1, 2], path), "found a list, expected a checkpoint's dictionary"),
    "a tensor": (lambda path: torch.save(torch.zeros(2), path), "found a Tensor"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder without a checkpoint, expected a file of weights"),
    "gone": (lambda path: path.rename(path.with_name("goodd.ckpt")), "no such checkpoint.*goodd.ckpt"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_is_refused_by_name(fault: str, good: Path) -> None:
    spoil, message = BROKEN[fault]
    spoil(good)
    with pytest.raises(CheckpointError, match=message) as caught:
        dvsn.load(good)
    assert str(good) in str(caught.value)
    with pytest.raises(CheckpointError):
        find_resume(str(good), good.parent)


class Payload:
    """Unpickling it would run a command."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle", "in the recipe", "safe file, wrong name"])
def test_a_file_that_would_run_code_runs_nothing(
    form: str, forced: bool, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary = tmp_path / "canary"
    payload = {"state_dict": {"a": Payload(canary)}, "dvsn": {}}
    if form == "bare pickle":
        good.write_bytes(pickle.dumps(payload))
    elif form == "in the recipe":
        changed(good, lambda content: content["dvsn"]["recipe"].update(network=Payload(canary)))
    else:
        torch.save(payload, good, _use_new_zipfile_serialization=form != "legacy")
    if form == "safe file, wrong name":
        good = good.rename(good.with_suffix(".safetensors"))
    for reader in (dvsn.load, read_checkpoint, lambda path: find_resume(str(path), tmp_path)):
        with pytest.raises(CheckpointError, match=r"refused|not a readable (checkpoint|safetensors file)"):
            reader(good)
    if form in ("zip", "in the recipe"):
        with pytest.raises(CheckpointError, match=r"refused\. The file holds .*system, which could run code"):
            dvsn.load(good)
    assert not canary.exists()


def test_lightnings_own_resume_is_as_strict(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trainer.fit(ckpt_path=...)` reads through AtomicCheckpointIO, whatever the environment says."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"state_dict": {"a": Payload(tmp_path / "canary")}}, good)
    for weights_only in (False, None, True):
        with pytest.raises(CheckpointError, match="refused"):
            AtomicCheckpointIO().load_checkpoint(good, weights_only=weights_only)
    assert not (tmp_path / "canary").exists()


HOSTILE = [
    "os.system", "subprocess.Popen", "torch.load", "dvsn.sweep.launcher.sweep", "dvsn.networks.unet.torch.hub.load",
    "pytorch_lightning.Trainer", "dvsn.tasks.loop.Callable", "builtins.eval",
]  # fmt: skip


@pytest.mark.parametrize("target", HOSTILE)
@pytest.mark.parametrize("place", ["recipe", "network", "optim"])
def test_a_recipe_builds_nothing_outside_the_allow_list(
    place: str, target: str, good: Path, tmp_path: Path
) -> None:
    node = {"_target_": target, "command": f"touch {tmp_path / 'canary'}"}

    def change(content: Content) -> None:
        if place == "recipe":
            content["dvsn"]["recipe"] = node
        else:
            content["dvsn"]["recipe"][place] = node

    with pytest.raises(
        CheckpointError, match=r"recipe is refused: task\.[\w.]*_target_: .*(not allowed|cannot import)"
    ) as caught:
        dvsn.load(changed(good, change))
    assert str(good) in str(caught.value)
    assert not (tmp_path / "canary").exists()


def another_task(content: Content) -> None:
    content["state_dict"] = {f"segmenter.{key}": value for key, value in content["state_dict"].items()}


def mis_shaped(content: Content) -> None:
    key = next(key for key, value in content["state_dict"].items() if value.ndim == 4)
    content["state_dict"][key] = torch.zeros(7, 7, 1, 1)


UNFIT: dict[str, tuple[Callable[[Content], Any], str]] = {
    "another task's keys": (another_task, r"do not fit this network, \d+ differences:\n  missing: .*\(.*and \d+ more"),
    "a wrong shape": (mis_shaped, r"1 differences:\n  shape: .* is \(7, 7, 1, 1\), expected \(\d+"),
    "one key too few": (lambda c: c["state_dict"].popitem(), r"1 differences:\n  missing: "),
    "one key too many": (lambda c: c["state_dict"].update(extra=torch.zeros(1)), r"unexpected: extra \(1,\)"),
    "no tensor": (lambda c: c["state_dict"].update(extra=3) or c["state_dict"].update(
        {next(iter(c["state_dict"])): "text"}), "not a tensor: .* is a str"),
    "no weights": (lambda c: c.pop("state_dict"), r"holds no weights"),
    "no recipe": (lambda c: c.pop("dvsn"), r"not a dvsn checkpoint .*dvsn\.convert"),
    "recipe is text": (lambda c: c["dvsn"].update(recipe="pix2pix"), "not a dvsn checkpoint"),
    "data is text": (lambda c: c["dvsn"].update(data="x"), r"recipe is damaged: data: expected a mapping, found 'x'"),
    "facts are a list": (lambda c: c["dvsn"]["data"].update(facts=[1]), r"data\.facts: expected a mapping, found \[1\]"),
    "a data set is a number": (lambda c: c["dvsn"]["data"].update(dataset=5), r"data\.dataset: expected a mapping"),
    "transform is text": (lambda c: c["dvsn"]["data"].update(transform="x"), r"data\.transform: expected a mapping"),
    "steps are text": (lambda c: c["dvsn"]["data"].update(transform={"eval": "x"}), r"transform\.eval: expected steps"),
    "names are text": (lambda c: c["dvsn"]["data"].update(dataset={"names": "x"}), r"dataset\.names: expected a list"),
    "a newer format": (lambda c: c["dvsn"].update(format=99, version="9.9"), r"written by dvsn 9\.9.*Update dvsn"),
    "format is text": (lambda c: c["dvsn"].update(format="x"), "found the format 'x'"),
    "unknown option": (lambda c: c["dvsn"]["recipe"].update(colour=1), "task.colour: unknown option"),
    "state is a list": (lambda c: c.update(state_dict=[1]), "holds no weights"),
    "a format of null": (lambda c: c["dvsn"].pop("format"), "found the format None"),
    "no target": (lambda c: c["dvsn"].update(recipe={"lr": 1}), "recipe is refused: task: expected a node"),
    "a network as task": (lambda c: c["dvsn"].update(recipe=c["dvsn"]["recipe"]["network"]), "recipe is refused"),
}  # fmt: skip


@pytest.mark.parametrize("fault", UNFIT)
def test_what_does_not_fit_is_listed(fault: str, good: Path) -> None:
    change, message = UNFIT[fault]
    changed(good, change)
    with pytest.raises(UserError, match=f"(?s){message}") as caught:
        dvsn.load(good)
    assert str(good) in str(caught.value)


def test_differences_are_listed_up_to_a_bound() -> None:
    expected = {f"key{i}": torch.zeros(2) for i in range(20)}
    with pytest.raises(
        CheckpointError, match=r"(?s)file\.ckpt.*20 differences:.*missing: key0 \(2,\).*and 12 more"
    ):
        require_equal(expected, {}, "file.ckpt")
    require_equal(expected, dict(expected), "file.ckpt")


# What is in the file ---------------------------------------------------------------------------------


def test_the_newest_that_loads_is_continued(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_resume("auto", tmp_path) is None
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    names = ["a.ckpt", "b.ckpt", "c.ckpt", "d.ckpt", "e.ckpt"]
    files = [Path(shutil.copy(trained / "checkpoints" / "last.ckpt", folder / name)) for name in names]
    truncated(files[2])
    flipped(files[3])
    changed(files[4], lambda content: content.pop("loops"))  # such as a converted one: nothing to continue
    (folder / ".f.ckpt.1.tmp").write_bytes(b"")
    for age, file in enumerate(files):
        os.utime(file, ns=(age * 10**9, age * 10**9))
    assert find_resume("auto", tmp_path) == files[1]
    passed = next(text for text in caplog.messages if "passed over" in text)
    assert [name in passed for name in names] == [False, False, True, True, True]
    os.utime(files[0], ns=(10**11, 10**11))
    assert find_resume("auto", tmp_path) == files[0]


def test_nothing_starts_anew_where_no_checkpoint_loads(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("last.ckpt", "best.ckpt"):
        truncated(Path(shutil.copy(trained / "checkpoints" / name, tmp_path / "checkpoints" / name)))
    with pytest.raises(
        CheckpointError, match=r"(?s)none of them can be continued:.*best\.ckpt.*resume=null"
    ) as caught:
        find_resume("auto", tmp_path)
    assert "last.ckpt: " in str(caught.value) and "truncated" in str(caught.value)


def test_a_job_that_was_started_again_finds_its_own(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer of last.ckpt and of what Lightning writes when SLURM asks a job to stop."""
    (tmp_path / "checkpoints").mkdir()
    last, asked = tmp_path / "checkpoints" / "last.ckpt", tmp_path / "hpc_ckpt_1.ckpt"
    for age, file in enumerate((last, asked)):
        shutil.copy(trained / "checkpoints" / "last.ckpt", file)
        os.utime(file, ns=(age * 10**9, age * 10**9))
    assert find_resume(None, tmp_path) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert find_resume(None, tmp_path) == asked
    os.utime(last, ns=(10**11, 10**11))
    assert find_resume(None, tmp_path) == last
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert find_resume(None, tmp_path) is None


def test_the_recipe_is_plain_data(trained: Path) -> None:
    header = read_recipe(read_checkpoint(trained / "checkpoints" / "best.ckpt"), "best.ckpt")
    pending: list[Any] = [header]
    while pending:
        value = pending.pop()
        assert type(value) in (dict, list, str, int, float, bool, type(None)), value
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    assert header["task"] == "pix2pix" and header["version"] == dvsn.__version__
    assert header["recipe"]["network"]["depth"] == 3 and header["data"]["pair"]["source"] == "a"


def test_safetensors_hold_the_same_weights(trained: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(trained / "checkpoints" / "last.safetensors")
    state = read_checkpoint(trained / "checkpoints" / "last.ckpt")["state_dict"]
    assert weights.keys() == state.keys() and all(torch.equal(weights[key], state[key]) for key in state)
    assert not leftovers(trained / "checkpoints")


def test_load_gives_the_task_ready_for_use(trained: Path) -> None:
    task = dvsn.load(trained / "checkpoints" / "last.ckpt")
    assert not any(module.training for module in task.modules())
    assert not any(parameter.requires_grad for parameter in task.parameters())
    state = read_checkpoint(trained / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(value, state[key]) for key, value in task.state_dict().items())


def test_load_needs_neither_hydra_nor_the_repository(trained: Path, tmp_path: Path) -> None:
    script = (
        "import sys, dvsn; heavy = {'torch', 'hydra'} & set(sys.modules); assert not heavy, heavy\n"
        f"task = dvsn.load({str(trained / 'checkpoints' / 'last.ckpt')!r})\n"
        "found = {'hydra', 'omegaconf', 'wandb', 'albumentations'} & set(sys.modules); assert not found, found\n"
        "import torch; print(tuple(task(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).shape))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(dvsn.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 3, 16, 16)"
