"""Predictors by name: embedded ones, local folders, the hub, timm's registry and torchvision's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffcern.assets import embedded_names
from diffcern.errors import DiffcernError, UsageError, unknown
from diffcern.labels import Vocabulary, Wanted, vocabulary_of
from diffcern.plugins import PATH, announced, made
from diffcern.predictors.adapted import CONFIG, load_weights, read_base
from diffcern.predictors.base import Predictor
from diffcern.predictors.clip import ZeroShot
from diffcern.predictors.hub import folder_of
from diffcern.predictors.mae import read_mae
from diffcern.predictors.native import read_predictor
from diffcern.predictors.timm_models import timm_folder, timm_predictor
from diffcern.predictors.torchvision_models import torchvision_predictor
from diffcern.predictors.transformers_models import transformers_predictor
from diffcern.texts import read_json
from diffcern.watching import doing, note
from diffcern.weight_files import single_file

__all__ = ["Predictor", "load_predictor"]

CONVERT = (
    "load it into its network and save that: timm.models.save_for_hf(model, FOLDER, model_config={'label_names': "
    "[...]}), or model.save_pretrained(FOLDER) of transformers; in Python, diffcern.Predictor(network, class_names, "
    "size=...)"
)
FORMS = ("hf:OWNER/NAME", "timm:NAME", "torchvision:NAME/WEIGHTS", "a folder")  # of names, besides "embedded:NAME"


def load_predictor(
    name: str,
    *,
    labels: Wanted | None = None,
    templates: Sequence[str] | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Predictor:
    """The predictor that `name` stands for, in eval mode and fp32.

    "embedded:NAME"; "timm:NAME[.TAG]" ("timm:resnet50.a1_in1k"); "torchvision:NAME/WEIGHTS"
    ("torchvision:resnet50/IMAGENET1K_V2"); "hf:OWNER/NAME[@REVISION]" on the hub; or a local folder. What a folder or
    a repository holds is told by its files: predictor.json (`diffcern train predictor`), mae.json (`diffcern train
    mae`), adapted.json (`diffcern align`) or a config.json of transformers or timm.

    labels: what to tell apart, for CLIP and SigLIP; of other models a choice among their classes, in any spelling (see
    `Predictor.restrict`). A mapping gives each label sentences of its own. templates: for CLIP and SigLIP, the
    sentences around a label (`["a photo of a {}."]`). allow_pickle: read weights that exist as pickles only (with
    torch's weights_only).
    trust_remote_code: run the Python code that a repository brings along.

    Raises UsageError for a name that does not exist and for labels that are missing, doubled or out of place;
    DiffcernError for a model that cannot be had or read.
    """
    vocabulary = vocabulary_of(labels, templates)
    with doing(f"loading the predictor {name}"):
        predictor = _load(name, vocabulary, allow_pickle, trust_remote_code)
    if vocabulary is None or isinstance(predictor.model, ZeroShot):
        return predictor
    return predictor.restrict(vocabulary.labels)


def _load(name: str, vocabulary: Vocabulary | None, allow_pickle: bool, trust_remote_code: bool) -> Predictor:
    """The predictor with all of its classes."""
    family, _, rest = name.partition(":")
    if family == "timm":
        return timm_predictor(rest, allow_pickle=allow_pickle)
    if family == "torchvision":
        return torchvision_predictor(rest)
    folder = folder_of(name, allow_pickle=allow_pickle, code=trust_remote_code)
    if folder.is_file():
        raise UsageError(f"{name} is a file, and predictors are folders" + single_file(folder, CONVERT))
    if not folder.is_dir():
        predictor: Predictor | None = made("predictors", name, Predictor)
        if predictor is not None:
            return predictor.eval()
        named = (f"embedded:{known}" for known in embedded_names("predictor"))
        raise unknown("predictor", name, [*named, *FORMS, *announced("predictors"), PATH])
    return _read_folder(folder, name, vocabulary, allow_pickle, trust_remote_code)


def _read_folder(
    folder: Path, name: str, vocabulary: Vocabulary | None, allow_pickle: bool, trust_remote_code: bool
) -> Predictor:
    """Tells by its files what a folder holds."""
    note(f"a predictor is read from {folder}")
    if (folder / CONFIG).is_file():
        base, names = read_base(folder)
        adapted = load_predictor(  # depth has no names
            base, labels=names or None, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code
        )
        load_weights(adapted, folder)
        wanted = vocabulary.labels if vocabulary else names
        return adapted.restrict(wanted) if wanted else adapted
    config = read_json(folder / "config.json", finite=False) if (folder / "config.json").is_file() else {}
    if not isinstance(config, dict):
        raise DiffcernError(f"{folder / 'config.json'} must be a JSON object, as transformers and timm write it")
    if not isinstance(config.get("id2label", {}) or {}, dict):
        raise DiffcernError(
            f'{folder / "config.json"}: id2label must be an object from numbers to names, {{"0": "cat"}}'
        )
    if config.get("model_type") == "llava":
        raise UsageError(
            f"{name} answers questions about images: it is for `diffcern answer` (in Python: load_answerer)"
        )
    if "model_type" in config or "architectures" in config:
        return transformers_predictor(
            folder, name, vocabulary, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code
        )
    if (folder / "predictor.json").is_file():
        return read_predictor(folder)
    if (folder / "mae.json").is_file():
        return read_mae(folder)
    if "architecture" in config:
        return timm_folder(folder, name, allow_pickle=allow_pickle)
    raise DiffcernError(
        f"{name} is not a predictor: it has neither a predictor.json (see `diffcern train predictor`) nor a "
        "config.json of transformers or timm" + single_file(folder, CONVERT)
    )
