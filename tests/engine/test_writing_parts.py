"""A checkpoint in parts: written whole or not at all, read as data, refused where it is not what was written."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from dvsn import parts
from dvsn.config.newest import checkpoints, is_whole
from dvsn.convert.command import convert
from dvsn.convert.options import COMMAND
from dvsn.engine import trainer as runtime
from dvsn.engine import writing_parts
from dvsn.engine.checkpoint import ASIDE, AtomicCheckpointIO, remove_leftovers
from dvsn.engine.resume import find_resume
from dvsn.engine.writing_parts import write_parts
from dvsn.errors import CheckpointError, ConfigError
from dvsn.hub.resolve import files_of, local
from dvsn.parts import INDEX, KEY, in_parts, sum_of
from dvsn.tasks.recipe import load
from dvsn.weights import read_checkpoint
from tests.support.boards import boards, run_on_boards
from tests.support.distill_stubs import SMALL, save_teacher
from tests.support.ranks import two_ranks
from tests.support.tiny import composed, write_blobs

IO = AtomicCheckpointIO()


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """One process that is a group of its own."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def content(step: int = 5, fill: float = 1.5) -> dict[str, Any]:
    state = {"a.weight": torch.full((3, 2), fill), "a.count": torch.tensor(7), "empty": torch.zeros(0)}
    momentum = {"state": {0: {"step": torch.tensor(2.0), "exp_avg": torch.full((3, 2), fill / 2)}}}
    return {
        "global_step": step, "state_dict": state, "loops": {"fit_loop": {}}, "lr_schedulers": [],
        "optimizer_states": [{**momentum, "param_groups": [{"lr": 0.1, "params": [0]}]}],
        "callbacks": {"best": torch.tensor([0.25])}, "dvsn": {"recipe": {}, "format": 1},
    }  # fmt: skip


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    write_parts(content(), path, io=IO)
    return path


def part(path: Path) -> Path:
    (file,) = path.glob("*/*.safetensors")
    return file


def test_it_is_read_as_the_whole_file_is(saved: Path, tmp_path: Path) -> None:
    IO.save_checkpoint(content(), tmp_path / "whole.ckpt")
    found = read_checkpoint(saved)
    same(found, read_checkpoint(tmp_path / "whole.ckpt"))
    assert list(found["state_dict"]) == list(content()["state_dict"])
    shapes = read_checkpoint(saved, shapes=True)
    assert shapes["state_dict"]["a.weight"].is_meta and shapes["state_dict"]["a.weight"].shape == (3, 2)
    assert checkpoints(saved.parent.parent) == [saved] and is_whole(saved)
    assert local(saved) == saved and local(saved.parent.parent) == saved
    assert files_of(saved) == sorted([saved / INDEX, part(saved)])
    assert find_resume("auto", saved.parent.parent) == saved


def test_the_older_one_is_replaced_and_its_parts_are_gone(saved: Path) -> None:
    older = part(saved)
    (saved / "notes.txt").write_text("mine")
    write_parts(content(6, 2.5), saved, io=IO)
    same(read_checkpoint(saved)["state_dict"]["a.weight"], torch.full((3, 2), 2.5))
    assert not older.exists() and part(saved).parent != older.parent and (saved / "notes.txt").exists()


@pytest.mark.parametrize("where", ["parts", "index"])
def test_a_write_that_breaks_off_leaves_the_one_before(
    where: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, which is said; and killed: what is left does not count, and goes with the next one."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing_parts, "sum_of" if where == "parts" else "sync_folder", full)
        with pytest.raises(OSError, match="No space left"):
            write_parts(content(6, 2.5), saved, io=IO)
        same(read_checkpoint(saved), content(5))
        assert len([*saved.iterdir()]) == 2
        patch.setattr(writing_parts, "remove", lambda path: None)  # as if killed
        with pytest.raises(OSError):
            write_parts(content(6, 2.5), saved, io=IO)
    same(read_checkpoint(saved), content(5))
    assert len([*saved.iterdir()]) == 3
    (saved / f".{INDEX}.123.tmp").touch()  # as if killed while the index was written
    write_parts(content(7), saved, io=IO)
    assert read_checkpoint(saved)["global_step"] == 7 and len([*saved.iterdir()]) == 2


def test_file_and_folder_take_each_others_place(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in between there is always one of the two, which resume=auto finds."""
    IO.save_checkpoint(content(6), saved)
    assert saved.is_file() and [*saved.parent.iterdir()] == [saved]
    write_parts(content(7), saved, io=IO)
    assert in_parts(saved) and [*saved.parent.iterdir()] == [saved]
    rename, seen = Path.rename, []

    def watched(self: Path, target: Path) -> Path:
        done = rename(self, target)
        seen.append([read_checkpoint(each)["global_step"] for each in checkpoints(saved.parent.parent)])
        return done

    monkeypatch.setattr(Path, "rename", watched)
    IO.save_checkpoint(content(8), saved)
    assert seen == [[7], [8, 7]] and [*saved.parent.iterdir()] == [saved]


def test_leftovers_of_dead_processes_are_removed(saved: Path) -> None:
    dead = saved.with_name(".last.ckpt.4194305.tmp")
    shutil.copytree(saved, dead)
    shutil.copytree(saved, saved.with_name(f"last{ASIDE}.ckpt"))
    mine = shutil.copytree(saved, saved.with_name("last_before.ckpt"))  # a copy of the user's own
    remove_leftovers(saved.parent)
    assert {*saved.parent.iterdir()} == {saved, mine}


def damaged(saved: Path, how: str) -> None:
    file = part(saved)
    if how == "missing":
        file.unlink()
    elif how == "foreign":
        save_file({"state_dict.a.weight": torch.zeros(3, 2)}, file)
    elif how == "more":
        shutil.copy(file, file.with_name("shard-00009-model-00001-of-00001.safetensors"))
    elif how == "byte":
        text = bytearray(file.read_bytes())
        text[-1] ^= 1
        file.write_bytes(text)
    elif how == "link":
        file.rename(saved / "elsewhere")
        file.symlink_to(saved / "elsewhere")
    else:
        index = torch.load(saved / INDEX, weights_only=True)
        if how == "large":
            index["state_dict"]["a.weight"] = torch.empty(10**9, 10**6, device="meta")
        elif how == "other shape":
            index["state_dict"]["a.weight"] = torch.empty(2, 2, device="meta")
        elif how == "path":
            index[KEY]["folder"] = "../../elsewhere"
        elif how == "no parts":
            del index[KEY]
        torch.save(index, saved / INDEX)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "missing",
            r"safetensors: this part of a checkpoint is missing\. It was written by 1 processes in 1 parts",
        ),
        ("link", "is missing"),
        ("foreign", "is not the part that was written with .*: it is damaged, or of another"),
        ("byte", "is not the part that was written with"),
        ("more", "shard-00009.* is no part of this checkpoint"),
        ("large", "speaks of 4,000,000,000,000"),
        ("other shape", "a.weight is not whole"),
        ("path", "is not the index of a checkpoint in parts"),
        ("no parts", "is not the index of a checkpoint in parts"),
    ],
)
def test_what_was_not_written_so_is_refused(how: str, message: str, saved: Path) -> None:
    damaged(saved, how)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(saved)
    if how != "other shape":
        with pytest.raises(CheckpointError, match="none of them can be continued"):
            find_resume("auto", saved.parent.parent)


def test_processes_share_the_sums_out_and_find_the_same(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of a process is damaged: all pass over the checkpoint. Each part is read once, by one process."""
    folder, index = saved.parent.parent, torch.load(saved / INDEX, weights_only=True)
    file = part(saved)
    first = file.with_name("shard-00000-model-00001-of-00001.safetensors")  # of none of these tensors
    save_file({"more": torch.zeros(2)}, first)
    index[KEY]["files"] |= {first.name: [first.stat().st_size, sum_of(first)]}
    torch.save(index, saved / INDEX)
    older = saved.with_name("best.ckpt")
    IO.save_checkpoint(content(4), older)
    os.utime(older, (1, 1))
    summed: list[str] = []
    monkeypatch.setattr(parts, "sum_of", lambda path: summed.append(path.name) or sum_of(path))

    def found() -> list[Any]:
        summed.clear()
        return run_on_boards(monkeypatch, boards(3, timeout=5), lambda _: find_resume("auto", folder))

    assert found() == [saved] * 3 and sorted(summed) == [first.name, file.name]
    text = bytearray(file.read_bytes())
    text[-1] ^= 1
    file.write_bytes(text)
    assert found() == [older] * 3 and sorted(summed) == [first.name, file.name]
    with pytest.raises(CheckpointError, match="is not the part that was written with"):
        find_resume(str(saved), folder)
    everywhere = run_on_boards(monkeypatch, boards(3, timeout=5), lambda _: find_resume(str(saved), folder))
    assert len({str(each) for each in everywhere}) == 1 and isinstance(everywhere[0], CheckpointError)


def test_processes_with_disks_of_their_own_check_everything(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [saved.parent.parent, tmp_path / "other"]
    shutil.copytree(folders[0], folders[1], copy_function=shutil.copy)
    damaged(folders[1] / "checkpoints" / "last.ckpt", "byte")
    found = run_on_boards(monkeypatch, boards(2, timeout=5), lambda rank: find_resume("auto", folders[rank]))
    assert found[0] == saved and isinstance(found[1], CheckpointError)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("where", [INDEX, ".metadata", "pickled index"])
def test_a_hostile_folder_executes_nothing(where: str, saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    if where == "pickled index":
        (saved / INDEX).write_bytes(pickle.dumps(Hostile(mark)))
    elif where == INDEX:
        torch.save({**content(), "more": Hostile(mark)}, saved / INDEX)
    else:
        (saved / INDEX).unlink()
        (saved / ".metadata").write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(CheckpointError, match="refused"):
        read_checkpoint(saved)
    with pytest.raises(CheckpointError):
        load(saved)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Hostile(mark)))  # it would have been
    assert mark.exists()


def test_hostile_numbers_in_a_part_are_an_error(saved: Path) -> None:
    """With the sums of the index made to fit."""
    file, index = part(saved), torch.load(saved / INDEX, weights_only=True)
    tensors = load_file(file)
    for told in ('{"state_dict.a.weight": {"saved_offsets": [-1, 0]}}', "[]", '{"x": 1}', "{"):
        save_file(tensors, file, metadata={"DCP_SHARDING_INFO": told})
        index[KEY]["files"] = {file.name: [file.stat().st_size, writing_parts.sum_of(file)]}
        torch.save(index, saved / INDEX)
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_checkpoint(saved)


def test_it_is_for_sharded_networks_alone(tmp_path: Path) -> None:
    config = composed([*SMALL, "trainer.fsdp_checkpoint=sharded"], tmp_path)
    with pytest.raises(ConfigError, match=r"is for trainer=fsdp\. Set trainer\.fsdp_checkpoint=whole"):
        runtime.build_trainer(config, runtime.make_task(config))


def test_convert_refuses_what_it_would_not_use(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="heads: is for published networks"):
        convert(COMMAND.parse([str(saved), str(tmp_path / "whole.ckpt"), "heads=false"]))


# Runs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Four epochs with whole files, with parts, with parts and broken after two, and first one form, then the other."""
    root = tmp_path_factory.mktemp("runs")
    blobs = write_blobs(root / "blobs", train=4)
    shared = [*SMALL, f"data.root={blobs}", "data.batch_size=4", "channels_last=false", "optim.lr=0.001"]
    taught = save_teacher(composed([*shared, "network=resnet14"], root), root / "teacher.ckpt")
    options = [
        *shared, f"teacher={taught}", "distill=[kd,crd]", "distill.crd.method.negatives=8", "network.depth=8",
        "distillation.engine=eager", "trainer.devices=2", "trainer.strategy=fsdp", "checkpoint.weights=true",
    ]  # fmt: skip

    def config(name: str, form: str, epochs: int) -> dict[str, Any]:
        more = [f"trainer.fsdp_checkpoint={form}", f"trainer.max_epochs={epochs}"]
        return composed([*options, *more], root / name)

    two_ranks(
        config("whole", "whole", 4), config("parts", "sharded", 4),
        config("broken", "sharded", 2), config("broken", "sharded", 4),
        *(config("mixed", form, epochs) for epochs, form in enumerate(("whole", "sharded") * 2, 1)),
    )  # fmt: skip
    return root, options


def last(root: Path, name: str) -> Path:
    return root / name / "checkpoints" / "last.ckpt"


@pytest.mark.slow
def test_a_run_in_parts_is_that_of_whole_files(runs: tuple[Path, list[str]], tmp_path: Path) -> None:
    """To the bit, also broken off and from one form to the other; each process has written half."""
    root, _ = runs
    convert(COMMAND.parse([str(last(root, "parts")), str(tmp_path / "whole.ckpt")]))
    expected = torch.load(last(root, "whole"), weights_only=True)
    sizes = [file.stat().st_size for file in last(root, "parts").glob("*/*.safetensors")]
    assert len(sizes) == 2
    for found in (torch.load(tmp_path / "whole.ckpt", weights_only=True), *(
        read_checkpoint(last(root, name)) for name in ("parts", "broken", "mixed")
    )):  # fmt: skip
        assert found.keys() == expected.keys()
        assert [*found["state_dict"]] == [*expected["state_dict"]]
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            same(found[key], expected[key])
    task: Any = load(last(root, "parts"))
    assert torch.isfinite(task(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))).all()
    weights = [load_file(root / name / "checkpoints" / "last.safetensors") for name in ("whole", "parts")]
    same(*weights)


@pytest.mark.slow
def test_another_number_of_processes_goes_on_from_parts(runs: tuple[Path, list[str]]) -> None:
    """A single one, which keeps everything and writes a whole file."""
    root, options = runs
    words = [*options, "trainer.fsdp_checkpoint=sharded", "trainer.max_epochs=5", "trainer.devices=1"]
    config = composed(words, root / "broken")
    from tests.support.processes import train

    before = read_checkpoint(last(root, "broken"))
    train(config, None)
    found = read_checkpoint(last(root, "broken"))
    assert last(root, "broken").is_file() and found["global_step"] == before["global_step"] * 5 // 4
    moved = [not torch.equal(value, found["state_dict"][key]) for key, value in before["state_dict"].items()]
    assert any(moved)
