"""Models in transformers' format, from a folder: image classification, semantic segmentation, depth estimation, and
CLIP and SigLIP for labels of your own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffcern.errors import DiffcernError, UsageError
from diffcern.labels import Labels, Vocabulary, label_space
from diffcern.predictors.base import Kind, Output, Predictor
from diffcern.predictors.clip import OPEN_VOCABULARY, zero_shot
from diffcern.predictors.hub import refuse_pickles
from diffcern.predictors.image_processors import check_preprocessing, preprocessing
from diffcern.predictors.probe import check_answer
from diffcern.weights import check_described, check_fit, check_loaded, check_network

# How transformers names a task's classes, and the tensor of the model's answer that is wanted.
METRIC = ("glpn", "zoedepth", "depth_pro")
TASKS: dict[Kind, tuple[str, str]] = {
    "classification": ("ForImageClassification", "logits"),
    "segmentation": ("ForSemanticSegmentation", "logits"),
    "depth": ("ForDepthEstimation", "predicted_depth"),
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
    refuse_pickles(folder, name, allow_pickle)
    try:
        return _read(folder, name, vocabulary, None if allow_pickle else True, trust_remote_code)
    except DiffcernError:
        raise
    except Exception as error:  # whatever reader failed, the user needs to know which model and why
        reason = " ".join(str(error).split())[:500]
        raise DiffcernError(f"cannot load {name}: {reason}") from error


def _read(folder: Path, name: str, vocabulary: Vocabulary | None, safe: bool | None, trust: bool) -> Predictor:
    import transformers  # slow to import, and only needed here

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    task = _task(config, name)
    if vocabulary is None and task is None:
        raise UsageError(f'{name} needs labels: load_predictor(..., labels=["cat", "dog"]) names what to tell apart')
    processor = transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=trust)
    options = preprocessing(processor, name)
    model, missing = _load(f"AutoModel{TASKS[task][0] if task else ''}", folder, name, safe, trust)
    if task is not None:
        names = [config.id2label[index] for index in range(config.num_labels)]
        labels = Labels(()) if task == "depth" else label_space(names)
        network: nn.Module = Output(model, TASKS[task][1])
    else:
        assert vocabulary is not None  # checked above
        check_fit(f"of {name}", missing)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
        labels = Labels(vocabulary.labels)
        network = zero_shot(model, tokenizer, vocabulary)
    predictor = Predictor(
        network, labels.names, class_ids=labels.ids, task=task or "classification", metric=_metric(config), **options
    )
    check_preprocessing(predictor, processor, name)
    if missing and not _unused(predictor, model, missing):
        check_fit(f"of {name}", missing)
    check_network(f"of {name}", model, folder.glob("*.safetensors"))
    return check_answer(predictor, name)


def _task(config: Any, name: str) -> Kind | None:
    """None for an open vocabulary. Raises DiffcernError for a model that is no predictor."""
    architectures = config.architectures or []
    for task, (suffix, _) in TASKS.items():
        if any(suffix in architecture for architecture in architectures):
            return task
    if config.model_type in OPEN_VOCABULARY:
        return None
    raise DiffcernError(
        f"{name} is a {' or '.join(architectures) or config.model_type}; predictors are image classification, semantic "
        "segmentation and depth estimation models, CLIP and SigLIP"
    )


def _metric(config: Any) -> bool:
    """Whether a depth model's answer is in metres; else it is relative inverse depth."""
    return config.model_type in METRIC or getattr(config, "depth_estimation_type", "") == "metric"


def _load(auto: str, folder: Path, name: str, safe: bool | None, trust: bool) -> tuple[Any, list[str]]:
    """The model in fp32 and the names of the tensors that the checkpoint lacks."""
    import transformers

    architecture = getattr(transformers, auto)
    if not trust:  # whose code knows what it builds
        build = partial(architecture.from_config, transformers.AutoConfig.from_pretrained(folder))
        check_described(folder / "config.json", build, [*folder.glob("*.safetensors")])
    model, info = architecture.from_pretrained(
        folder,
        use_safetensors=safe,
        trust_remote_code=trust,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that the message below can name them
    )
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
