"""`python -m dvsn.tune`: a learning rate and a batch size for a training, by short trials."""

from __future__ import annotations

from typing import Any

from dvsn import command_line
from dvsn.command_line import UNPACKED, Command, Option
from dvsn.config.light_imports import import_lightning

Config = dict[str, Any]

COMMAND = Command(
    name="tune",
    summary="Find a learning rate, a batch size, or both, for the training of the same options.",
    groups=True,
    options=(
        Option("tune.find", "lr", "lr, batch_size, or both: the batch size first, then the rate with it"),
        Option("tune.output", "tune/NAME", "folder of tune.json and the pictures"),
        Option("tune.lowest", 1e-5, "learning rates from here"),
        Option("tune.highest", 10.0, "to here, in equal ratios"),
        Option("tune.steps", 120, "so many of them, one a step"),
        Option(
            "tune.diverges",
            3.0,
            "end where the loss is so many times that of the start; null: at the highest rate",
        ),
        Option("tune.first", 2, "batch sizes from here, doubled"),
        Option("tune.most", 1024, "up to here, or to the size of the training split"),
        Option("tune.trial_steps", 4, "steps with each of them; the first is not timed"),
        Option("tune.gain", 0.05, "on a CPU: end once two doublings made it no faster by this share"),
        Option("seed", "0", "everything random derives from it"),
        Option("weights", "null", "start from the networks of a checkpoint"),
        Option("teacher", "null", "a checkpoint to learn from; goes with distill=..."),
        Option("data.root", "data/NAME", "where the data set lies"),
        UNPACKED,
    ),
    examples=(
        "python -m dvsn.tune task=classification data=cifar10 network=resnet8x4",
        "python -m dvsn.tune task=segmentation data=camvid network=pidnet_s tune.find=both tune.steps=240",
        "python -m dvsn.tune task=pix2pix data=facades tune.find=batch_size trainer=gpu",
    ),
)


def tune(config: Config) -> Config:
    """Tune by a resolved, plain config. Returns what tune.json holds."""
    import_lightning()
    from dvsn.engine import tuning  # Lightning, which `--help` and a wrong option do without

    return tuning.tune(config)


def main() -> None:
    def command() -> None:
        from dvsn.config.compose import hydra_main  # Hydra, which `--help` does without

        hydra_main("tune", tune)

    command_line.run(command, command=COMMAND)


if __name__ == "__main__":
    main()
