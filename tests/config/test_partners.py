"""What fits what: every choice of every group beside every task is accepted as shipped, or refused before data is opened."""

from __future__ import annotations

import copy
import functools
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from omegaconf import OmegaConf
from torch import nn

from dvsn.config import compose
from dvsn.config.menu import choices, conf_dir
from dvsn.config.partners import shipped
from dvsn.errors import ConfigError
from dvsn.train import train

GROUPS = choices()
TASKS = [task for task in GROUPS["task"] if task != "distillation"]


def named(group: str, pattern: str) -> set[str]:
    return {name for name in GROUPS[group] if re.fullmatch(pattern, name)}


SEGMENTERS = named("network", r"(pidnet_[sml]|ddrnet_\d+(_slim|_adb_bag)?|bisenetv[12](_adb_bag)?)")
SEGMENTERS |= named("network", r"hrnetv2_w\d+(_small_v\d|_ocr)?|timm_segmenter|torchvision_segmentation")
CLASSIFIERS = named("network", r".*_classifier|resnet\d+(x4)?|resnet50_cifar|vgg\d+|wrn_.*|shufflenet_v\d")
CLASSIFIERS |= {"mobilenetv2_half", "torchvision"}
HEATMAPS = named("network", r"hrnet_(small|w\d+)|simplebaseline_\d+|hrnetv2_w18_face|timm_pose")
NETWORKS = {
    "classification": CLASSIFIERS,
    "detection": named("network", r"hrnetv2p_w\d+|detector_small|timm_detector"),
    "landmarks": {"pfld", "pfld_025", "timm_landmarks"},
    "landmarks_heatmaps": HEATMAPS,
    "pix2pix": named("network", r"unet_\w+|resnet_\dblocks|timm_generator"),
    "pose": HEATMAPS,
    "segmentation": SEGMENTERS,
}
LOSSES = {
    "classification": {"cross_entropy_classes"},
    "detection": set(),
    "landmarks": named("loss", r"landmarks_\w+|(soft_)?wing|pfld"),
    "landmarks_heatmaps": {"heatmaps", "adaptive_wing"},
    "pix2pix": {"vanilla", "hinge", "lsgan", "wgangp"},
    "pose": {"heatmaps", "adaptive_wing"},
    "segmentation": {
        "bisenet",
        "boundary_distance",
        "cross_entropy",
        "ddrnet",
        "dice",
        "focal",
        "lovasz",
        "ocr",
        "ohem",
        "pidnet",
        "rmi",
        "tversky",
    },
}
OBJECTS = {"detection", "detection_colour"}
TRANSFORMS = {
    "detection": OBJECTS,
    "landmarks": {"face"},
    "landmarks_heatmaps": {"face"},
    "pose": {"pose"},
    **dict.fromkeys(
        ("classification", "pix2pix", "segmentation"), set(GROUPS["transform"]) - OBJECTS - {"face", "pose"}
    ),
}
FITS = {
    "network": NETWORKS,
    "loss": LOSSES,
    "transform": TRANSFORMS,
    "codec": {
        task: set(GROUPS["codec"]) if task in ("pose", "landmarks_heatmaps") else set() for task in TASKS
    },
    "discriminator": {task: set(GROUPS["discriminator"]) if task == "pix2pix" else set() for task in TASKS},
}
AUXILIARY = SEGMENTERS - named("network", r"hrnetv2_w\d+(_small_v\d)?|timm_segmenter")
BOUNDARY = named("network", r"pidnet_[sml]|ddrnet_23_adb_bag|bisenetv1_adb_bag")
HEADS = {"bisenet": AUXILIARY, "ddrnet": AUXILIARY, "ocr": AUXILIARY, "pidnet": BOUNDARY}
"""Of a loss of segmentation that reads heads, the networks that have them in training."""
OWN = {"keypoints", "keypoint_table", "yolo_keypoints"}
FACES = {"300w", "aflw", "cofw", "face_files", "face_json", "face_lines", "faces", "faces68", "wflw"}
STREETS = {"cityscapes", "cityscapes_onehot", "street", "street_onehot", "street_parts"}
LABELLED = STREETS | {"camvid", "cocostuff", "lip", "object_masks", "pascal_context", "segmentation"}
DATA = {
    "classification": {"cifar10", "cifar100", "imagefolder"},
    "detection": STREETS | {"boxes", "coco", "mask_boxes", "ochuman", "voc_boxes", "yolo_boxes"},
    "landmarks": FACES,
    "landmarks_heatmaps": FACES,
    "pix2pix": LABELLED | {"aligned", "edges2shoes", "facades", "folders", "maps"},
    "pose": OWN
    | {"coco", "crowdpose", "lspet", "mpii", "ochuman", "street", "street_onehot", "street_parts"},
    "segmentation": LABELLED,
}
for _task in set(TASKS) - {"detection"}:
    DATA[_task] = DATA[_task] | {"shards"}  # whose index says what they hold


@functools.cache
def composed(*overrides: str) -> Any:
    """A composed config, not resolved, as plain data."""
    with compose.initialized(conf_dir()):
        cfg = hydra_compose("train", overrides=["name=x", "run_dir=x", "data.root=nowhere", *overrides])
    OmegaConf.set_struct(cfg, False)
    compose.modernise(cfg)
    return OmegaConf.to_container(cfg, resolve=False)


def refusal(task: str, **parts: str | None) -> str:
    """The message that refuses these choices; empty where they fit. Anything but a `ConfigError` is raised."""
    tree = copy.deepcopy(composed(f"task={task}"))
    for group, name in parts.items():
        tree[group] = None if name is None else copy.deepcopy(shipped(group)[name])
    try:
        compose.checked(OmegaConf.create(tree))
    except ConfigError as error:
        return str(error)
    return ""


def usual_loss(network: str) -> str:
    return "pidnet" if network in BOUNDARY else "ohem"


CASES = [(task, group) for task in TASKS for group in FITS]
ONE_A_KIND = {
    "network": ["pidnet_s", "resnet8", "unet_256", "hrnet_small", "pfld", "detector_small"],
    "loss": ["ohem", "cross_entropy_classes", "vanilla", "heatmaps", "wing"],
    "transform": ["resize_256", "face", "pose", "detection"],
    "codec": ["udp"],
    "discriminator": ["patchgan"],
}


def check_choices(task: str, group: str, names: list[str]) -> None:
    for name in names:
        more = {"loss": usual_loss(name)} if task == "segmentation" and group == "network" else {}
        message = refusal(task, **more, **{group: name})
        if name in FITS[group][task]:
            assert not message, name
        else:
            assert message.startswith(f"{group}: "), (name, message)
            assert "that fit: " in message or "takes none" in message, message


@pytest.mark.parametrize(("task", "group"), CASES)
def test_a_choice_fits_its_task_or_is_refused_with_what_fits(task: str, group: str) -> None:
    check_choices(task, group, ONE_A_KIND[group])


@pytest.mark.slow
@pytest.mark.parametrize(("task", "group"), CASES)
def test_every_choice_fits_its_task_or_is_refused(task: str, group: str) -> None:
    check_choices(task, group, GROUPS[group])


def check_pair(network: str, loss: str) -> None:
    message = refusal("segmentation", network=network, loss=loss)
    if network in HEADS.get(loss, SEGMENTERS):
        assert not message
        return
    assert message.startswith("loss.terms.") and "does not have in training" in message
    offered = message.partition("that fit: ")[2].partition(", or ")[0].rstrip(".").split(", ")
    assert set(offered) == {each for each in LOSSES["segmentation"] if network in HEADS.get(each, SEGMENTERS)}


@pytest.mark.parametrize("network", ["ddrnet_23", "hrnetv2_w18"])
@pytest.mark.parametrize("loss", ["bisenet", "pidnet", "ohem"])
def test_a_loss_of_heads_wants_a_network_that_has_them(network: str, loss: str) -> None:
    check_pair(network, loss)


@pytest.mark.slow
def test_every_loss_of_segmentation_with_every_network() -> None:
    for network, loss in itertools.product(sorted(SEGMENTERS), sorted(LOSSES["segmentation"])):
        check_pair(network, loss)


def test_the_terms_that_a_message_leaves_out_are_enough() -> None:
    """BiSeNet has no boundary head: two of PIDNet's four terms read one."""
    message = refusal("segmentation", network="bisenetv1", loss="pidnet")
    advised = re.findall(r"(loss\.terms\.\w+=null)", message)
    assert advised == ["loss.terms.boundary=null", "loss.terms.main_at_boundary=null"]
    tree = composed("task=segmentation", "network=bisenetv1", *advised)
    assert compose.checked(OmegaConf.create(copy.deepcopy(tree)))


def check_data(task: str, data: str) -> None:
    try:
        compose.checked(OmegaConf.create(copy.deepcopy(composed(f"task={task}", f"data={data}"))))
    except ConfigError as error:
        assert data not in DATA[task], error
        offered = str(error).partition("that fit: ")[2].rstrip(".").partition(" and ")[0].split(", ")
        assert offered and set(offered) <= DATA[task], error
        return
    assert data in DATA[task]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("data", ["camvid", "cifar10", "coco", "wflw", "aligned"])
def test_data_fits_its_task_or_is_refused_with_what_fits(task: str, data: str) -> None:
    check_data(task, data)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("data", [name for name in GROUPS["data"] if name != "shards"])  # see test_indexed
def test_every_data_set_fits_its_task_or_is_refused(task: str, data: str) -> None:
    check_data(task, data)


@pytest.mark.parametrize(
    ("task", "part"),
    [("segmentation", "loss"), ("segmentation", "network"), ("pose", "codec"), ("pix2pix", "discriminator")],
)
def test_a_part_that_is_missing_is_named(task: str, part: str) -> None:
    assert refusal(task, **{part: None}).startswith(
        f"{part}: found null, and task={task} needs one. Choices of {part}"
    )


GROUPS_OF_A_RUN = (
    "network",
    "discriminator",
    "loss",
    "codec",
    "transform",
    "data",
    "optim",
    "schedule",
    "trainer",
)


def emptied(task: str, group: str, *, gone: bool) -> dict[str, Any]:
    """The tree of a task without a group, which a YAML file has made null or whose choice it has left out."""
    tree = copy.deepcopy(composed(f"task={task}"))
    tree[group] = None
    if gone:
        del tree[group]
    return tree


def check_empty(task: str, group: str, *, gone: bool) -> None:
    """It is a run all the same, or refused with choices, of which the first that a message names will do."""
    try:
        compose.checked(OmegaConf.create(emptied(task, group, gone=gone)))
    except ConfigError as error:
        message = str(error)
        assert "Interpolation" not in message and "raised while" not in message
        if message == f"task.{group}: expected a node with _target_, found null":
            return
        assert f"Choices of {group}=..." in message, message
        choices = message.partition(f"Choices of {group}=...")[2].partition(": ")[2]
        tree = emptied(task, group, gone=gone)
        names = re.split(r", | and |\.", choices)
        fit = next(
            name
            for name in names
            if name in FITS.get(group, DATA if group == "data" else {}).get(task, [name])
        )
        tree[group] = copy.deepcopy(shipped(group)[fit])
        compose.checked(
            OmegaConf.create(
                tree | {"epochs": 3} if group != "data" else composed(f"task={task}", f"data={fit}")
            )
        )


@pytest.mark.parametrize(
    ("task", "group"),
    [("pix2pix", "discriminator"), ("pose", "codec"), *(("segmentation", each) for each in GROUPS_OF_A_RUN)],
)
def test_a_group_that_is_null_is_refused_with_its_choices(task: str, group: str) -> None:
    check_empty(task, group, gone=True)
    check_empty(task, group, gone=False)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("group", GROUPS_OF_A_RUN)
def test_every_group_that_is_null(task: str, group: str) -> None:
    check_empty(task, group, gone=True)
    check_empty(task, group, gone=False)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_that_is_null_on_the_command_line(group: str) -> None:
    """Left out where a run can be without it, else refused with its choices."""
    with compose.opened("train", []) as session:
        try:
            (override,) = compose._repair(session.loader, [f"{group}=null"])
        except ConfigError as error:
            assert str(error).startswith(
                f"{group}: found null, and there has to be one. Choices of {group}=...: "
            )
            assert GROUPS[group][0] in str(error) and "_base" not in str(error)
            assert group not in compose.OPTIONAL and "none" not in GROUPS[group]
        else:
            assert override == (f"~{group}" if group in compose.OPTIONAL else f"{group}=none")


NOTHING = {
    "task.discriminator=null": r"^task\.discriminator: found null, .* discriminator=\.\.\. that fit: n_layers",
    "task.loss=null": r"^task\.loss: found null, .*Choices of loss=\.\.\. that fit: hinge",
    "data.splits=null": r"refers to \$\{data\.splits\.train\}, which .* There is no data\.splits: ",
    "task.label_classes=${data.label_clases}": r"^task\.label_classes: refers .*mean 'data\.label_classes'",
    "task.label_classes=${dataa.x}": r"^task\.label_classes: refers to \$\{dataa\.x\}, .*There is no dataa: ",
}


@pytest.mark.parametrize("line", NOTHING)
def test_what_refers_to_nothing_is_told_with_what_there_is(line: str) -> None:
    with pytest.raises(ConfigError, match=NOTHING[line]):
        compose.checked(OmegaConf.create(copy.deepcopy(composed("task=pix2pix", line))))


def test_a_list_in_the_place_of_options_is_told() -> None:
    words = r"task/landmarks_heatmaps\.yaml: sets options of a group whose choice has a list there"
    with (
        compose.opened("train", ["task=landmarks_heatmaps", "transform=null"]) as session,
        pytest.raises(ConfigError, match=words),
    ):
        compose.compose(session.loader, session.name, session.overrides)


class Silent(nn.Module):
    """A network of a user that says nothing of itself."""


class Wordy(Silent):
    response = "image"


@pytest.mark.parametrize(("kind", "refused"), [("Silent", False), ("Wordy", True)])
def test_a_class_of_a_user_that_says_nothing_is_let_through(
    kind: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVSN_ALLOW", "tests")
    tree = copy.deepcopy(composed("task=segmentation"))
    tree["network"] = {"_target_": f"{__name__}.{kind}"}
    if refused:
        with pytest.raises(ConfigError, match="network: Wordy answers with image, and task=segmentation"):
            compose.checked(OmegaConf.create(tree))
    else:
        assert compose.checked(OmegaConf.create(tree))


def test_it_is_refused_before_a_folder_is_made_or_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["task=segmentation", "network=unet_256", "data.root=nowhere", "teacher=no.ckpt", "distill=cwd"]
    with pytest.raises(ConfigError, match=r"network: UNet answers with image.*pidnet_s"):
        compose.hydra_main("train", train, argv=argv)
    assert not list(tmp_path.iterdir())


def test_a_plain_config_is_refused_by_train_too(tmp_path: Path) -> None:
    tree = compose.plain(OmegaConf.create(copy.deepcopy(composed("task=pose", "loss=wing"))))
    with pytest.raises(ConfigError, match="loss: Wing is for points, and task=pose"):
        train({**tree, "run_dir": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()
