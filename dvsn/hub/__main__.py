"""`python -m dvsn.hub`: publish a checkpoint as a folder of recipe, weights, scores and model card."""

from __future__ import annotations

import logging
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from dvsn import command_line
from dvsn.command_line import REQUIRED, UNPACKED, Command, Option
from dvsn.errors import ConfigError, nearest
from dvsn.hub.names import PART
from dvsn.reading import unpacking

PUSH = Command(
    name="hub push",
    summary="Write a checkpoint as a folder for the Hugging Face hub, and upload it if you are logged in.",
    options=(
        Option("checkpoint", REQUIRED, "what to publish, such as runs/NAME/DATE_TIME/checkpoints/best.ckpt"),
        Option("repository", "", "OWNER/NAME on the hub; also as the second word; empty: the folder alone"),
        Option("local", "", "the folder to write; empty: hub/NAME"),
        Option(
            "license", "", "of your weights, as the hub spells it, such as apache-2.0; empty: none stated"
        ),
        UNPACKED,
        Option("private", False, "whether a new repository is private"),
    ),
    examples=(
        "python -m dvsn.hub push runs/demo/pix2pix/checkpoints/best.ckpt OWNER/NAME",
        "python -m dvsn.hub push runs/demo/pix2pix/checkpoints/best.ckpt local=my_folder",
    ),
)
COMMANDS = {"push": "write a folder with recipe, weights, scores and card, and upload it"}


def help_text() -> str:
    """The commands, one line each."""
    lines = "\n".join(f"  {name:<8} {summary}" for name, summary in COMMANDS.items())
    head = "dvsn hub: weights by name. hf://OWNER/NAME is taken wherever dvsn takes a checkpoint"
    return f"{head}\n\nusage: python -m dvsn.hub COMMAND ...\n\n{lines}\n\npython -m dvsn.hub COMMAND --help says more.\n"


def read_options(argv: list[str]) -> dict[str, Any]:
    """The options of `push`; the second word without a '=' is the repository."""
    words = [n for n, word in enumerate(argv) if not re.match(r"(--)?[A-Za-z_][\w.-]*=", word)]
    named = {word.partition("=")[0].lstrip("-") for word in argv}
    spare = words[0 if "checkpoint" in named else 1 :]
    if len(spare) == 1:
        argv = [f"repository={word}" if n == spare[0] else word for n, word in enumerate(argv)]
    options = PUSH.parse(argv)
    repository, folder = str(options["repository"]), str(options["local"])
    if not repository and not folder:
        raise ConfigError("repository: not given. Write OWNER/NAME, or local=FOLDER for the folder alone.")
    if repository and not re.fullmatch(f"{PART}/{PART}", repository):
        raise ConfigError(f"repository: found '{repository}', expected OWNER/NAME.")
    if not re.fullmatch(r"[\w.-]*", str(options["license"])):
        raise ConfigError(f"license: found '{options['license']}', expected one word, such as apache-2.0.")
    return {**options, "local": folder or f"hub/{repository.rpartition('/')[2]}"}


def push(options: dict[str, Any]) -> Path:
    """Write the folder; upload it where a repository is given."""
    from dvsn.publish.folder import write_folder
    from dvsn.publish.upload import upload

    folder, repository = Path(options["local"]), str(options["repository"])
    checkpoint, licence = str(options["checkpoint"]), str(options["license"])
    with unpacking(options):
        write_folder(checkpoint, folder, name=repository or folder.name, licence=licence)
    if repository:
        again = shlex.join(["python", "-m", "dvsn.hub", "push", checkpoint, repository, f"local={folder}"])
        upload(folder, repository, private=bool(options["private"]), again=again)
    return folder


def answer(argv: list[str]) -> None:
    name = argv[0] if argv else "--help"
    if name in ("--help", "-h", "help"):
        sys.stdout.write(help_text())
    elif name != "push":
        raise ConfigError(f"{name}: unknown command of dvsn hub. {nearest(name, COMMANDS)}")
    elif {"--help", "-h"} & set(argv):
        sys.stdout.write(PUSH.help_text())
    else:
        push(read_options(argv[1:]))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command_line.run(lambda: answer(sys.argv[1:]))


if __name__ == "__main__":
    main()
