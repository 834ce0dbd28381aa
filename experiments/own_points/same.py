"""Two data sets through `data init` against their YAMLs by hand: `DVSN_DATA=DATA python same.py FOLDER`.

A short training of the recipe of each by both, with one seed; then what was logged is compared, and the weights. FOLDER gets
the YAMLs of `data init` and the runs. The table is printed.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import torch

SHORT = ("epochs=1", "trainer.check_val_every_n_epoch=1", "data.workers=0")
CASES = {
    "lspet": ("experiment=pose_lspet", "trainer.limit_train_batches=6", "trainer.limit_val_batches=2"),
    "faces68": ("experiment=pfld_faces68", "trainer.limit_train_batches=40", "ema=null"),
}
"""The recipe of each, and what it is cut to."""


def dvsn(folder: Path, *words: str) -> None:
    """A command of dvsn in `folder`."""
    subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def logged(run: Path) -> dict[str, str]:
    """The last value of each loss and score in metrics.csv."""
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return {
            key: value
            for row in csv.DictReader(file)
            for key, value in row.items()
            if value and key.startswith(("train/", "val/"))
        }


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])


def compare(name: str, folder: Path) -> None:
    """Trains by both YAMLs and prints a row for each loss and score, and one for the weights."""
    mine = f"{name}_mine"
    task = "pose" if name == "lspet" else "landmarks"
    dvsn(folder, "dvsn.data", "init", f"{os.environ['DVSN_DATA']}/{name}", f"name={mine}", f"task={task}")
    by_init, by_hand = folder / "runs" / mine, folder / "runs" / name
    recipe = ("dvsn.train", "--config-dir", "my_conf", *CASES[name], *SHORT)
    dvsn(folder, *recipe, f"data={mine}", "data.split_seed=null", f"hydra.run.dir={by_init}")
    dvsn(folder, *recipe, f"hydra.run.dir={by_hand}")
    ours, theirs = logged(by_init), logged(by_hand)
    for key in sorted(ours | theirs):
        print(f"| {name} | {key} | {ours.get(key, '-')} | {theirs.get(key, '-')} |")
    learnt, expected = weights(by_init), weights(by_hand)
    same = learnt.keys() == expected.keys() and all(torch.equal(learnt[key], expected[key]) for key in learnt)
    print(
        f"| {name} | {len(expected)} tensors of weights | {'equal' if same else 'DIFFERENT'} | |", flush=True
    )


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    print("| set | logged | `data init` | by hand |\n|---|---|---|---|", flush=True)
    for name in CASES:
        compare(name, folder)


if __name__ == "__main__":
    main()
