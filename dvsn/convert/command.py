"""What `python -m dvsn.convert` does: a published file becomes a checkpoint with the recipe of its task."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from omegaconf import OmegaConf

from dvsn.command_line import UNPACKED
from dvsn.config import menu
from dvsn.config.compose import initialized
from dvsn.config.folders import at_home, require_writable
from dvsn.config.menu import conf_dir
from dvsn.convert.options import COMMAND
from dvsn.convert.release import shorten
from dvsn.convert.rules import convert as convert_state
from dvsn.data.cocostuff_names import PUBLISHED_IDS, THINGS
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.errors import CheckpointError, ConfigError, nearest
from dvsn.hub.resolve import local
from dvsn.parts import INDEX, described, in_parts
from dvsn.tasks.recipe import build_task, load_state, read_recipe
from dvsn.weights import read_checkpoint

log = logging.getLogger("dvsn")
ADAM = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3}
SGD = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


OWNERS = {
    "generators": (
        ("generator", "discriminator"),
        ("discriminator", "value_range", "test_dropout", "test_norm"),
    ),
    "networks of keypoints": (("pose", "landmarks"), ("codec", "size")),
    "networks of keypoints and classifiers of small pictures": (("pose", "landmarks", "small"), ("data",)),
}
"""Whose options some are, by the kind of network."""
MPII_JOINTS = 16  # its crops are square
CIFAR_OF = {10: "cifar10", 100: "cifar100"}
DATA_OF = {
    "pose": {17: "coco", 16: "mpii", 14: "crowdpose"},
    "landmarks": {98: "wflw", 68: "300w", 29: "cofw", 19: "aflw"},
}
"""The data set whose keypoints a published network of so many has, most likely."""


def convert_file(path: str, options: dict[str, Any] | None = None, container: str | None = None) -> Any:
    """The `Converted` network of a published file, with a report of what was read and dropped."""
    state = read_checkpoint(
        local(path), plain=(argparse.Namespace,)
    )  # a training script's options: values by name
    if "dvsn" in state:
        raise CheckpointError(
            f"{path}: is a dvsn checkpoint already; dvsn.load and dvsn.predict take it as it is."
        )
    try:
        converted = convert_state(state, options=options, container=container)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    log.info("%s: %s '%s', %d tensors used, %d dropped",
             path, converted.kind, converted.layout, len(converted.state), len(converted.dropped))  # fmt: skip
    for reason in dict.fromkeys(converted.dropped.values()):
        keys = [key for key, why in converted.dropped.items() if why == reason]
        log.info("  %d dropped (%s): %s", len(keys), shorten(keys).removesuffix("."), reason)
    for note in converted.notes:
        log.info("  note: %s", note)
    return converted


def convert(options: dict[str, Any]) -> Path:
    """Write the checkpoint. Its recipe holds the inferred architecture; it is loaded strictly before it is saved."""
    path = at_home(str(options["output"]), option="output")
    require_writable(path.parent, option="output")
    if in_parts(Path(str(options["source"]))):
        return gather(Path(str(options["source"])), path, options)
    told = ("heads", "align_corners", "channels", "joints")
    chosen = {name: options[name] for name in told if options[name] is not None}
    if options["dropout"] is not None:
        chosen["dropout"] = float(options["dropout"])
    found = convert_file(str(options["source"]), chosen, options["container"])
    refuse_foreign(found, options)
    state = {f"network.{key}": value for key, value in found.state.items()}
    if found.kind in ("generator", "discriminator"):
        recipe = translation_recipe(found, options)
        if options["discriminator"] is not None:
            recipe["discriminator"], judge = read_discriminator(str(options["discriminator"]))
            state |= judge
    elif found.kind not in RECIPES:
        raise CheckpointError(
            f"{options['source']}: read as {found.layout}, but no task of this version uses such a network ({found.kind}). "
            f"There are tasks for: {', '.join((*OWNERS['generators'][0][:1], *RECIPES))}."
        )
    else:
        recipe = RECIPES[found.kind](found, options)
    task = build_task(recipe | found.task)
    if found.kind in DATA_OF:
        task.data_recipe = keypoint_data(task, options)
    elif found.kind == "detector":
        task.data_recipe = detector_data(task)
    elif is_small(found):
        task.data_recipe = class_data(task, options)
    load_state(task, state, options["source"])
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    log.info("written %s", path)
    return path


def gather(source: Path, path: Path, options: dict[str, Any]) -> Path:
    """Write the whole file that a checkpoint in parts (`trainer.fsdp_checkpoint=sharded`) stands for."""
    own = ("source", "output", UNPACKED.name)
    for option in COMMAND.options:
        if option.name not in own and options[option.name] != option.default:
            raise ConfigError(
                f"{option.name}: is for published networks; {source} is a checkpoint of dvsn in parts."
            )
    if path.is_dir():
        raise ConfigError(f"output: {path} is a folder, expected the name of a file, such as whole.ckpt.")
    parts = described(source, read_checkpoint(source / INDEX))
    content = read_checkpoint(source)
    header = read_recipe(content, source)
    AtomicCheckpointIO().save_checkpoint(content, path)
    log.info(
        "%s: a checkpoint in %d parts, written by %d processes after step %d of %s; %d tensors of the network",
        source, len(parts.files), parts.processes, int(content.get("global_step", 0)),
        str(header["recipe"].get("_target_", "a task")).rpartition(".")[2], len(content["state_dict"]),
    )  # fmt: skip
    log.info("written %s", path)
    return path


def translation_recipe(generator: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The task of a published generator."""
    if generator.kind != "generator":
        raise CheckpointError(
            f"{options['source']}: is a {generator.kind}. Give the generator as source, and this file as discriminator=..."
        )
    unit = generator.layout.startswith("post")
    return {
        "_target_": "dvsn.tasks.pix2pix.Pix2Pix",
        "network": generator.network,
        "discriminator": None,
        "loss": {"_target_": "dvsn.losses.translation.TranslationLoss"},
        "optim": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 2e-4, "betas": [0.5, 0.999]},
        "value_range": options["value_range"] or ("unit" if unit else "signed"),
        "test_dropout": bool(options["test_dropout"]),
        "test_norm": options["test_norm"],
    }


def read_discriminator(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its recipe, and its weights under the task's names."""
    judge = convert_file(path)
    if judge.kind != "discriminator":
        raise CheckpointError(f"{path}: is a {judge.kind}, expected a discriminator.")
    return judge.network, {f"discriminator.{key}": value for key, value in judge.state.items()}


def refuse_foreign(found: Any, options: dict[str, Any]) -> None:
    """Refuse options that could change nothing of this kind of network."""
    default = {option.name: option.default for option in COMMAND.options}
    what = {"pose": "pose network", "landmarks": "landmark network"}.get(found.kind, found.kind)
    for owners, (kinds, names) in OWNERS.items():
        for name in names:
            fits = found.kind in kinds or ("small" in kinds and is_small(found))
            if not fits and options[name] != default[name]:
                raise ConfigError(f"{name}: is for {owners}; {options['source']} is a {what}.")


def segmentation_recipe(segmenter: Any, _: dict[str, Any]) -> dict[str, Any]:
    """The task of a published segmenter. Loss and optimiser are plain: an experiment brings its own."""
    terms = {"semantic": {"_target_": "dvsn.losses.cross_entropy.CrossEntropy"}}
    classes = segmenter.network["classes"]
    return {
        "_target_": "dvsn.tasks.segmentation.Segmentation",
        "network": segmenter.network,
        "loss": {"_target_": "dvsn.losses.segmentation.Objective", "classes": classes, "terms": terms},
        "optim": SGD,
    }


def classification_recipe(classifier: Any, _: dict[str, Any]) -> dict[str, Any]:
    """The task of a published ImageNet network, from which `weights=` starts a segmenter."""
    classes = classifier.network["classes"]
    return {
        "_target_": "dvsn.tasks.classification.Classification",
        "network": classifier.network,
        "classes": classes,
        "loss": {"_target_": "dvsn.losses.classification.ClassCrossEntropy", "classes": classes},
        "optim": SGD,
    }


def pose_recipe(pose: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The task of a published pose network, trained as its authors did but for the schedule."""
    size = options["size"] or pose.codec.get("size")
    if size is None:
        size = [256, 256] if pose.network["joints"] == MPII_JOINTS else [256, 192]
        log.info("  note: the keys do not tell the size of the crops: %s is assumed (size=...).", size)
    more = {"sigma": 3.0, "blur": 17} if size == [384, 288] else {}
    stride = 2 ** (5 - pose.network.get("deconvolutions", 3))
    return {
        "_target_": "dvsn.tasks.pose.Pose",
        "network": pose.network,
        "codec": read_codec(options) | {**pose.codec, "size": size, "stride": stride} | more,
        "loss": {"_target_": "dvsn.losses.heatmaps.JointMSE"},
        "optim": ADAM,
    }


def read_codec(options: dict[str, Any]) -> dict[str, Any]:
    """The node of the codec that was asked for."""
    name, known = str(options["codec"]), menu.choices()["codec"]
    if name not in known:
        raise ConfigError(f"codec: there is no {name!r}. {nearest(name, known)}")
    codec: dict[str, Any] = yaml.safe_load(
        Path(conf_dir(), "codec", f"{name}.yaml").read_text(encoding="utf-8")
    )
    return codec


def landmarks_recipe(found: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The task of a published network of facial landmarks, by points or by heatmaps."""
    if "joints" in found.network:
        own = dict(found.codec)
        if options["codec"] != "msra":  # another codec has its own frame
            own = {key: own[key] for key in ("size", "sigma")}
        return {
            "_target_": "dvsn.tasks.landmarks.HeatmapLandmarks",
            "network": found.network,
            "codec": read_codec(options) | {**own, "size": options["size"] or own["size"]},
            "loss": {"_target_": "dvsn.losses.heatmaps.JointMSE"},
            "optim": ADAM,
        }
    side = found.network["size"]
    if options["size"] not in (None, [side, side]):
        raise ConfigError(f"size: found {options['size']}, but this network takes crops of [{side}, {side}].")
    return {
        "_target_": "dvsn.tasks.landmarks.Landmarks",
        "network": found.network,
        "loss": {"_target_": "dvsn.losses.landmarks.PFLDLoss"},
        "size": [side, side],
        "optim": ADAM,
    }


def detection_recipe(detector: Any, _: dict[str, Any]) -> dict[str, Any]:
    """The task of a published detector."""
    return {"_target_": "dvsn.tasks.detection.Detection", "network": detector.network, "optim": SGD}


def detector_data(task: Any) -> dict[str, Any]:
    """COCO, numbered anew, for a detector of its eighty classes; nothing where another number is found."""
    classes = task.network.classes
    if classes != len(THINGS) + 1:
        log.info("  note: the names of its %d classes are not known.", classes - 1)
        return {}
    log.info("  note: the names of the %d classes are taken to be those of data=coco.", classes - 1)
    data = data_node("coco", "task=detection", f"data.object_classes={classes}")
    named = {"names": dict(enumerate(THINGS, 1)), "ids": dict(enumerate(PUBLISHED_IDS[: len(THINGS)], 1))}
    return {**data, "objects": {**data["objects"], **named}}


def keypoint_data(task: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The data set of a published network of keypoints, which knows them; nothing where none is known."""
    network = task.recipe["network"]
    joints = network.get("joints") or network["landmarks"]
    name = options["data"] or DATA_OF[task.kind].get(joints)
    if name is None:
        log.info(
            "  note: no data set of %d keypoints is known, so their names and mirror pairs are not: give data=NAME.",
            joints,
        )
        return {}
    if options["data"] is None:
        log.info("  note: the names of the %d keypoints are taken to be those of data=%s.", joints, name)
    kind = task.kind if task.kind == "pose" or "landmarks" in network else "landmarks_heatmaps"
    size = list(task.size if kind == "landmarks" else task.codec.size)
    codec = [] if kind == "landmarks" else [f"codec={options['codec']}"]
    data = data_node(str(name), f"task={kind}", *codec, f"transform.size={size}")
    if data["joints"] != joints:
        raise ConfigError(f"data: {name} has {data['joints']} keypoints, the network {joints}.")
    return data


def is_small(found: Any) -> bool:
    """Whether it classifies pictures of 32 x 32."""
    return bool(found.kind == "classifier" and found.layout.startswith("cifar/"))


def class_data(task: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The data set of a published network for small pictures, which knows its classes; nothing where none is known."""
    name = options["data"] or CIFAR_OF.get(task.classes)
    if name is None:
        log.info(
            "  note: no data set of %d classes is known, so their names are not: give data=NAME.",
            task.classes,
        )
        return {}
    if options["data"] is None:
        log.info("  note: the names of the %d classes are taken to be those of data=%s.", task.classes, name)
    data = data_node(str(name), "task=classification", "transform=cifar")
    if data["classes"] != task.classes:
        raise ConfigError(f"data: {name} has {data['classes']} classes, the network {task.classes}.")
    return data


def data_node(name: str, *overrides: str) -> dict[str, Any]:
    """The node of a data set under a task, as plain data."""
    known = menu.choices()["data"]
    if name not in known:
        raise ConfigError(f"data: there is no {name!r}. {nearest(name, known)}")
    with initialized(conf_dir()):
        node = compose("train", overrides=[*overrides, f"data={name}", "name=convert", "run_dir=."]).data
    data = OmegaConf.to_container(node, resolve=True)
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}


RECIPES = {
    "segmenter": segmentation_recipe,
    "classifier": classification_recipe,
    "pose": pose_recipe,
    "landmarks": landmarks_recipe,
    "detector": detection_recipe,
}
