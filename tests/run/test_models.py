"""Models are loaded in the precision asked for, and a fingerprint changes with whatever a model computes with."""

import copy
import dataclasses

import pytest
import torch
from hub_checkpoints import ddpm, stable_diffusion

from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import fingerprint
from diffcern.priors import load_prior
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.priors.spatial import Maps
from diffcern.run.models import load_models
from diffcern.run.spec import Models, parse_models

CPU = torch.device("cpu")


@pytest.fixture
def loaded(models):
    return load_models(Models(**models), CPU)


def test_only_the_priors_network_changes_precision(models, loaded):
    half = load_models(Models(**models, dtype="bfloat16"), CPU)
    assert {p.dtype for p in half.prior.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.predictor.parameters()} == {torch.float32}
    assert torch.equal(half.prior.alphas, loaded.prior.alphas)
    assert torch.equal(half.prior.sigmas, loaded.prior.sigmas)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_predicts_nearly_the_same(dtype):
    """On the embedded prior: a class's mean error moves by rounding, well below what tells classes apart."""
    from diffcern.data.digits import digits
    from diffcern.types import Inputs

    data = digits("validation")
    inputs = Inputs(torch.stack([data[i].image for i in range(6)]), [data[i].id for i in range(6)])

    def answer(dtype):
        models = load_models(Models(prior="embedded:digits", dtype=dtype), CPU)
        method = models.method("diffusion-classifier", {"draws": 8, "weighting": "x0"})
        return method.step(method.init(), inputs, 0)[0].output

    full, half = answer("float32"), answer(dtype)
    assert not torch.equal(full, half)
    assert torch.equal(full.argmax(-1), half.argmax(-1))
    # bf16 keeps 8 bits: the gaps between classes, differences of errors, agree to a few per cent of their size
    assert (full - half).norm() < 0.05 * full.norm()


def test_labels_are_the_classes_of_a_prior_alone(models):
    prior = Models(prior=models["prior"])
    assert load_models(prior, CPU).task.class_names == tuple("0123456789")
    assert load_models(prior, CPU, labels=("8", "3")).task.class_names == ("8", "3")
    with pytest.raises(DiffcernError, match="cat"):
        load_models(prior, CPU, labels=("cat",))
    with pytest.raises(UsageError, match="give a predictor, a prior or both"):
        load_models(Models(), CPU)


def test_a_wrong_precision_names_the_choices(models):
    with pytest.raises(UsageError, match=r"dtype.*'float32', 'bfloat16' or 'float16'"):
        parse_models({**models, "dtype": "float8"})


def test_fingerprint_is_that_of_the_content(models, loaded):
    again = load_models(Models(**models), CPU)
    assert again.fingerprints() == loaded.fingerprints() != {}
    assert fingerprint(load_prior(models["prior"], torch.bfloat16)) != fingerprint(loaded.prior)
    assert list(load_models(Models(prior=models["prior"]), CPU).fingerprints()) == ["prior"]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: next(m.predictor.parameters()).data.flatten()[0].add_(1e-3),
        lambda m: m.predictor.mean.add_(0.1),  # in no state dict
        lambda m: setattr(m.predictor, "class_names", m.predictor.class_names[::-1]),
        lambda m: setattr(m.predictor, "crop", 0.9),
    ],
)
def test_fingerprint_notices(loaded, change):
    changed = dataclasses.replace(loaded, predictor=copy.deepcopy(loaded.predictor))
    change(changed)
    assert changed.fingerprints()["predictor"] != loaded.fingerprints()["predictor"]
    assert changed.fingerprints()["prior"] == loaded.fingerprints()["prior"]


def test_fingerprint_notices_other_errors_on_clean_images(loaded):
    known = copy.deepcopy(loaded.prior)
    known.clean_errors = torch.linspace(0, 1, 101)
    assert fingerprint(known) != fingerprint(loaded.prior)


def test_fingerprint_leaves_out_what_parts_derive(loaded):
    other = copy.deepcopy(loaded.prior)
    other.denoiser.pos_embed.pos_embed.add_(1e-7)  # computed when built, in no state dict
    assert fingerprint(other) == fingerprint(loaded.prior)
    other.alphas.add_(1e-3)
    assert fingerprint(other) != fingerprint(loaded.prior)


def test_an_unconditional_prior_purifies_and_answers_no_questions(tmp_path):
    prior = ddpm(tmp_path / "ddpm")
    models = load_models(Models(predictor="embedded:digits", prior=str(prior)), CPU)
    assert models.task.class_names == tuple("0123456789")
    assert models.method("dda", {"steps": 2}).purifier.evaluations == 2
    with pytest.raises(DiffcernError, match="this prior is unconditional and cannot be asked about classes"):
        models.method("diffusion-tta", {})


@pytest.mark.parametrize(
    "change",
    [
        lambda prior: next(prior.encoder.networks[0].parameters()).data.flatten()[0].add_(1e-3),
        lambda prior: setattr(prior.autoencoder, "scale", 0.2),
        lambda prior: prior.encoder.pipeline.tokenizer.add_tokens("<new>"),
    ],
)
def test_fingerprint_covers_the_text_encoder_and_the_latents_scale(change, tmp_path):
    prior = load_prior(str(stable_diffusion(tmp_path / "sd")))
    before = fingerprint(prior)
    change(prior)
    assert fingerprint(prior) != before


def test_a_class_map_renames_what_the_maps_of_a_prior_show(tmp_path):
    maps = Maps("segmentation", ("road", "auto"))
    prior = native_prior(NativeConfig("dit", "x0", 8, 3, (), maps), width=16, depth=1, heads=2, patch=4)
    prior.save_pretrained(tmp_path)
    models = parse_models({"prior": str(tmp_path), "task": "segmentation", "class_map": {"auto": "car"}})
    loaded = load_models(models, torch.device("cpu"))
    assert loaded.prior.maps.names == ("road", "car")
