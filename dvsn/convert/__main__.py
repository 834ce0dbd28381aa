"""`python -m dvsn.convert`: a published checkpoint becomes a dvsn checkpoint."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from dvsn import commands
from dvsn.errors import CheckpointError

log = logging.getLogger("dvsn")

COMMAND = commands.Command(
    name="convert",
    summary="Turn a published checkpoint into a dvsn checkpoint.",
    options=(
        commands.Option(
            "source", commands.REQUIRED, "the published generator, a state dict such as latest_net_G.pth"
        ),
        commands.Option("output", commands.REQUIRED, "the checkpoint to write, such as facades.ckpt"),
        commands.Option("discriminator", None, "the published discriminator, to go on training with it"),
        commands.Option("dropout", None, "the generator's dropout rate, which its keys may not tell"),
        commands.Option("value_range", None, "signed or unit; null: what the release trains with"),
        commands.Option(
            "test_dropout", False, "dropout when used; the authors' release has it on unless --no_dropout"
        ),
        commands.Option(
            "test_norm", "running", "running or batch statistics; the authors' release tests with batch"
        ),
    ),
    examples=(
        "python -m dvsn.convert latest_net_G.pth facades.ckpt",
        "python -m dvsn.convert source=latest_net_G.pth output=facades.ckpt test_norm=batch discriminator=latest_net_D.pth",
    ),
)


def convert_file(path: str, options: dict[str, Any] | None = None) -> Any:
    """The `Converted` network of a published file, with a report of what was read and dropped."""
    from dvsn.checkpoint import read_checkpoint
    from dvsn.convert.rules import convert

    state = read_checkpoint(path)
    if "dvsn" in state:
        raise CheckpointError(
            f"{path}: is a dvsn checkpoint already; dvsn.load and dvsn.predict take it as it is."
        )
    try:
        converted = convert(state, options=options)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    log.info("%s: %s '%s', %d tensors used, %d dropped",
             path, converted.kind, converted.layout, len(converted.state), len(converted.dropped))  # fmt: skip
    for key, reason in list(converted.dropped.items())[:8]:
        log.info("  dropped %s: %s", key, reason)
    if len(converted.dropped) > 8:
        log.info("  and %d more of the kind", len(converted.dropped) - 8)
    for note in converted.notes:
        log.info("  note: %s", note)
    return converted


def convert(options: dict[str, Any]) -> Path:
    """Write the checkpoint. Its recipe holds the inferred architecture; it is loaded strictly before it is saved."""
    from dvsn.checkpoint import AtomicCheckpointIO, build_task, load_state

    extra = {} if options["dropout"] is None else {"dropout": float(options["dropout"])}
    generator = convert_file(str(options["source"]), extra)
    if generator.kind != "generator":
        raise CheckpointError(
            f"{options['source']}: is a {generator.kind}. Give the generator as source, and this file as discriminator=..."
        )
    unit = generator.layout.startswith("post")
    recipe: dict[str, Any] = {
        "_target_": "dvsn.tasks.pix2pix.Pix2Pix",
        "network": generator.network,
        "discriminator": None,
        "loss": {"_target_": "dvsn.losses.translation.TranslationLoss"},
        "optim": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 2e-4, "betas": [0.5, 0.999]},
        "value_range": options["value_range"] or ("unit" if unit else "signed"),
        "test_dropout": bool(options["test_dropout"]),
        "test_norm": options["test_norm"],
    }
    state = {f"network.{key}": value for key, value in generator.state.items()}
    if options["discriminator"] is not None:
        judge = convert_file(str(options["discriminator"]))
        if judge.kind != "discriminator":
            raise CheckpointError(f"{options['discriminator']}: is a {judge.kind}, expected a discriminator.")
        recipe["discriminator"] = judge.network
        state |= {f"discriminator.{key}": value for key, value in judge.state.items()}
    task = build_task(recipe)
    load_state(task, state, options["source"])
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    path = Path(options["output"])
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    log.info("written %s", path)
    return path


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    commands.run(lambda: convert(COMMAND.parse(sys.argv[1:])), command=COMMAND)


if __name__ == "__main__":
    main()
