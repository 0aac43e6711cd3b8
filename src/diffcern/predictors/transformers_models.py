"""Models in transformers' format, from a folder: image classification, semantic segmentation, depth estimation, and
CLIP and SigLIP for labels of your own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffcern.errors import DiffcernError, UsageError, first_line
from diffcern.files import reading
from diffcern.kinds import KINDS, TaskName
from diffcern.labels import Labels, Vocabulary, label_space, numbered
from diffcern.predictors.base import Output, Predictor, without_background
from diffcern.predictors.clip import OPEN_VOCABULARY, text_tokenizer, zero_shot
from diffcern.predictors.hub import stored
from diffcern.predictors.image_processors import check_preprocessing, preprocessing
from diffcern.predictors.probe import check_answer
from diffcern.quiet import quiet_reading
from diffcern.texts import read_json
from diffcern.weight_files import Stored
from diffcern.weights import check_described, check_fit, check_loaded, check_network

PROCESSORS = ("preprocessor_config.json", "processor_config.json")
METRIC = ("glpn", "zoedepth", "depth_pro")
TASK_OF_CLASS: dict[TaskName, str] = {
    "classification": "ForImageClassification",
    "segmentation": "ForSemanticSegmentation",
    "depth": "ForDepthEstimation",
}


def transformers_predictor(
    folder: Path,
    name: str,
    vocabulary: Vocabulary | None = None,
    *,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Predictor:
    """The model in a folder with config.json, preprocessor_config.json and model.safetensors, weights in fp32.

    name: what messages call it; vocabulary: the labels of a CLIP or SigLIP model, not looked at for others. Raises
    UsageError where that is missing; DiffcernError for a model of another kind, one whose tensors
    are not those of its network, and one whose images are prepared in a way that `Predictor` cannot.
    """
    weights = stored(folder, name, allow_pickle)
    try:
        with quiet_reading():
            return _read(folder, name, vocabulary, weights, trust_remote_code)
    except DiffcernError:
        raise
    except Exception as error:  # whatever reader failed, the user needs to know which model and why
        reason = " ".join(str(error).split())[:500]
        raise DiffcernError(f"cannot load {name}: {reason}") from error


def _read(folder: Path, name: str, vocabulary: Vocabulary | None, weights: Stored, trust: bool) -> Predictor:
    import transformers  # slow to import, and only needed here

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    task = _task(config, name)
    if vocabulary is None and task is None:
        raise UsageError(
            f"{name} needs labels, which name what to tell apart: --labels cat,dog, in Python "
            'load_predictor(..., labels=["cat", "dog"])'
        )
    processor = _processor(folder, name, trust)
    options = preprocessing(processor, name)
    model, missing = _load(f"AutoModel{TASK_OF_CLASS[task] if task else ''}", folder, name, weights, trust)
    if task is not None:
        labels = label_space(_names(config, name)) if KINDS[task].classes else Labels(())
        network: nn.Module = Output(model, KINDS[task].keys[0])
    else:
        assert vocabulary is not None  # checked above
        check_fit(f"of {name}", missing)
        tokenizer = text_tokenizer(folder, config.model_type, trust)
        labels = Labels(vocabulary.labels)
        network = zero_shot(model, tokenizer, vocabulary, partial(_clip, folder, name, weights, trust))
    predictor = Predictor(
        network, labels.names, class_ids=labels.ids, task=task or "classification", metric=_metric(config), **options
    )
    without_background(predictor)
    check_preprocessing(predictor, processor, name)
    _check_size(predictor, config, name)
    if missing and not _unused(predictor, model, missing):
        check_fit(f"of {name}", missing)
    check_network(f"of {name}", model, weights.files(folder, "transformers"))
    return check_answer(predictor, name)


def _clip(folder: Path, name: str, weights: Stored, trust: bool) -> tuple[Any, Any]:
    """The whole model of a CLIP, and its tokenizer, once more."""
    with quiet_reading():
        model = _load("AutoModel", folder, name, weights, trust)[0]
        return model.eval(), text_tokenizer(folder, model.config.model_type, trust)


def transformers_backbone(folder: Path, name: str) -> Predictor:
    """A model of images without a head (AutoModel), as DINOv2, or the image tower of a CLIP or SigLIP: its outputs are
    pooled features, and its classes their numbers. Raises DiffcernError as `transformers_predictor`."""
    weights = stored(folder, name, False)
    with reading(folder, "A model of images in transformers' format has config.json and weights"), quiet_reading():
        processor = _processor(folder, name, False)
        options = preprocessing(processor, name)
        model, missing = _load("AutoModel", folder, name, weights, False)
    check_fit(f"of {name}", missing)
    network = Pooled(getattr(model, "vision_model", model))
    count = network(Predictor(network, (), **options).prepare(torch.full((1, 3, 64, 64), 0.5))).shape[1]
    predictor = Predictor(network, numbered(count).names, **options)
    check_preprocessing(predictor, processor, name)
    check_network(f"of {name}", model, weights.files(folder, "transformers"))
    return check_answer(predictor, name)


class Pooled(nn.Module):
    """The pooled features of a model of transformers, `[B, D]`: its own pooler's, else those of the first token."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        output = self.model(images)
        pooled = getattr(output, "pooler_output", None)
        return (output.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1)


def _processor(folder: Path, name: str, trust: bool) -> Any:
    """How the images of the model in that folder are prepared. Raises DiffcernError where nothing says so."""
    import transformers

    if not any((folder / file).is_file() for file in PROCESSORS):
        raise DiffcernError(
            f"{name} has no {PROCESSORS[0]}, which says how its images are prepared: copy that of the model which it "
            "was trained from"
        )
    for file in PROCESSORS:
        if (folder / file).is_file() and not isinstance(read_json(folder / file, finite=False), dict):
            raise DiffcernError(f"{folder / file} must be a JSON object, as transformers writes it")
    return transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=trust)


def _names(config: Any, name: str) -> list[str]:
    """What the outputs are called, in order. Raises DiffcernError for outputs that are no classes that exclude each
    other, and for names that are not numbered like them."""
    kind = getattr(config, "problem_type", None)
    if kind in ("multi_label_classification", "regression"):
        raise DiffcernError(
            f"{name} is for {kind}: its outputs are no classes of which one is right, and methods here weigh classes "
            "against each other"
        )
    known, count = config.id2label, config.num_labels
    if count < 2:
        raise DiffcernError(
            f"{name} has one output: there is nothing to tell apart. Give a classifier of two classes or more"
        )
    if known.keys() != set(range(count)):
        raise DiffcernError(
            f"{name} has outputs 0 to {count - 1}, and its config.json (id2label) names {min(known)} to {max(known)}: "
            "number its names like its outputs"
        )
    return [str(known[index]) for index in range(count)]


@torch.no_grad()
def _check_size(predictor: Predictor, config: Any, name: str) -> None:
    """Raises DiffcernError where processor and network do not agree on a size, and the network minds."""
    fixed = getattr(getattr(config, "vision_config", config), "image_size", None)
    if fixed is None or predictor.size in (fixed, (fixed, fixed)):
        return
    pixels = predictor.prepare(torch.full((1, 3, 300, 400), 0.5))
    try:
        predictor.model(pixels)
    except Exception as error:  # every architecture has its own
        raise DiffcernError(
            f"{name} disagrees with itself: its processor makes images of {list(pixels.shape[-2:])}, and its network "
            f"was built for image_size {fixed} ({first_line(error)}): correct {PROCESSORS[0]}"
        ) from error


def _task(config: Any, name: str) -> TaskName | None:
    """None for an open vocabulary. Raises DiffcernError for a model that is no predictor."""
    architectures = config.architectures or []
    if task := task_of_classes(architectures):
        return task
    if config.model_type in OPEN_VOCABULARY:
        return None
    if config.model_type == "siglip2":
        raise DiffcernError(
            f"{name} is a SigLIP 2 that takes images of any ratio (NaFlex): give one of fixed resolution, whose name "
            "ends with the size, as google/siglip2-base-patch16-224"
        )
    raise DiffcernError(
        f"{name} is a {' or '.join(architectures) or config.model_type}; predictors are image classification, semantic "
        "segmentation and depth estimation models, CLIP and SigLIP"
    )


def task_of_classes(architectures: Sequence[str]) -> TaskName | None:
    """What the head of a model is for, by the names of its classes; None for one without such a head."""
    suffixes = TASK_OF_CLASS.items()
    return next((task for task, suffix in suffixes if any(suffix in name for name in architectures)), None)


def _metric(config: Any) -> bool:
    """Whether a depth model's answer is in metres; else it is relative inverse depth."""
    return config.model_type in METRIC or getattr(config, "depth_estimation_type", "") == "metric"


def _load(auto: str, folder: Path, name: str, weights: Stored, trust: bool) -> tuple[Any, list[str]]:
    """The model in fp32 and the names of the tensors that the checkpoint lacks."""
    import transformers

    architecture = getattr(transformers, auto)
    if not trust:  # whose code knows what it builds
        build = partial(architecture.from_config, transformers.AutoConfig.from_pretrained(folder))
        check_described(folder / "config.json", build, weights.files(folder, "transformers"))
    model, info = architecture.from_pretrained(folder, trust_remote_code=trust, **weights.reading)
    check_loaded(f"of {name}", {**info, "missing_keys": ()})
    return model.float().eval(), sorted(info["missing_keys"])


@torch.no_grad()
def _unused(predictor: Predictor, model: nn.Module, missing: Iterable[str]) -> bool:
    """Whether the output does not depend on these tensors, as those that Intel/dpt-large lacks: it is the same to the
    last bit with NaN, with random numbers and with zeros in their place. (NaN alone would not show: fused attention
    takes a row of them for one that is masked.) They are left at zero, the same in every process."""
    state = model.state_dict()
    tensors = [state[key] for key in missing if state[key].is_floating_point()]
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 64, 64, generator=rng)
    outputs = []
    for fill in (torch.nan, None, 0.0):
        for tensor in tensors:
            tensor.normal_(generator=rng) if fill is None else tensor.fill_(fill)
        outputs.append(predictor(image))
    return all(torch.equal(output, outputs[-1]) for output in outputs)
