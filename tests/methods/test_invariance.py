"""What must hold for every method: answers belong to the image, and the user's models are never touched."""

import copy

import pytest
import timm
import torch

from diffcern.adapted import AdaptedModel
from diffcern.alignment import Alignment
from diffcern.fingerprints import fingerprint
from diffcern.methods import METHODS, build_method, reads_batch
from diffcern.methods.base import frozen_view
from diffcern.predictors import Predictor, load_predictor
from diffcern.predictors.adapted import save_adapted
from diffcern.predictors.mae import MaeConfig, mae_predictor
from diffcern.types import Inputs, concatenate

OPTIONS = {
    "memo": {"views": 4, "learning_rate": 0.05},
    "ttt-mae": {"steps": 2, "masks": 4},
    "eta": {"sure": 1.0, "alike": 1.0},  # random networks are sure of nothing
    "eata": {"sure": 1.0, "alike": 1.0, "source_images": "embedded:digits/train", "fisher_count": 3},
    "sar": {"sure": 1.0},
    "deyo": {"sure": 1.0, "drop": -1.0},
    "cotta": {"views": 2},
    "foa": {"source_images": "embedded:digits/train", "source_size": 3, "population": 4},
    "tpt": {"views": 4, "template": "a scene with a {}", "learning_rate": 0.05},
    "diffusion-tta": {"steps": 2, "draws": 4, "optimizer": "sgd", "learning_rate": 0.05},
    "diffusion-classifier": {"draws": 8, "stop": "race", "strategy": "van-der-corput"},
    "prototypes": {"per_class": 4, "steps": 3},
    "canonical": {"draws": 4, "rounds": 1, "margin": 0.0},
    "random-views": {"views": 3},
    "dusa": {"top_k": 2, "random_k": 1},
    "diffpure": {"start": 300, "steps": 3},
    "dda": {"start": 300, "steps": 3, "weight": 0.3},
    "gda": {"start": 300, "steps": 3, "entropy": 0.0},  # which looks at pixels
}
OPTIONS["sda-tta"] = OPTIONS["diffusion-tta"]
BY_SOURCE = ("tent", "eta", "eata", "sar", "deyo", "cotta")  # which have an option to need no batch
SINGLE = [name for name in METHODS if not reads_batch(name, {})]


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    sizes = {"width": 16, "depth": 1, "heads": 2, "patch": 2, "decoder_depth": 1}
    return mae_predictor(MaeConfig(8, tuple("0123"), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), **sizes))


@pytest.fixture(scope="module")
def clip():
    return load_predictor("embedded:scenes-clip", labels=["cube", "cone", "ring", "sphere"], templates=["a {}"])


@pytest.fixture
def own(predictor, autoencoder, clip, transformer):
    """The predictor that a method is for, by the method's name."""
    return lambda name: {"ttt-mae": autoencoder, "tpt": clip, "foa": transformer}.get(name, predictor)


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    network = timm.models.VisionTransformer(8, 4, embed_dim=8, depth=1, num_heads=1, num_classes=4)
    return Predictor(network, tuple("0123"), size=8)


@pytest.fixture
def aligned(predictor, prior, tmp_path):
    """A folder as `diffcern align` leaves it, with the predictor's own weights."""
    prints = {"predictor": fingerprint(predictor), "prior": fingerprint(prior)}
    names = ("mine", "exact", "exact", prints, "dda", OPTIONS["dda"], predictor.class_names)
    Alignment(*names, per_class=1, sampling={}, resynthesis=True, recipe={}, seed=0).begin(tmp_path / "aligned")
    save_adapted(predictor, "mine", tmp_path / "aligned" / "predictor")
    return str(tmp_path / "aligned")


@pytest.fixture
def build(own, prior, task, aligned):
    def make(name, **options):
        if name == "foa":
            pytest.importorskip("cma", reason="pycma is not installed: pip install 'diffcern[foa]'")
        needed = {"aligned": aligned} if name.startswith("sda") else {}
        return build_method(name, own(name), prior, task, {**OPTIONS.get(name, {}), **needed, **options})

    return make


def answers(method, inputs, batch_size):
    """One AdaptedModel call per batch, as a user's loop would."""
    model = AdaptedModel(method)
    pieces = [inputs[i : i + batch_size] for i in range(0, len(inputs), batch_size)]
    return torch.cat([model(piece.images, piece.ids) for piece in pieces])


@pytest.mark.parametrize("name", [*SINGLE, *(f"{name}/source" for name in BY_SOURCE)])
def test_batch_size_order_and_sharding_do_not_matter(build, inputs, name):
    name, _, statistics = name.partition("/")
    method = build(name, **({"statistics": statistics} if statistics else {}))
    alone = answers(method, inputs, 1)
    for batch_size in (3, 32):
        assert torch.equal(answers(method, inputs, batch_size), alone)  # episodes run one by one: exact
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    shuffled = Inputs(inputs.images[order], [inputs.ids[i] for i in order])
    assert torch.equal(answers(method, shuffled, 3), alone[order])
    shards = [Inputs(inputs.images[i::4], inputs.ids[i::4]) for i in range(4)]
    merged = torch.empty_like(alone)
    for i, shard in enumerate(shards):
        merged[i::4] = answers(method, shard, 2)
    assert torch.equal(merged, alone)


@pytest.mark.parametrize("name", ["source", "diffusion-classifier", "diffpure", "dda", "gda", "sda"])
def test_a_batched_step_answers_each_image_as_if_alone(build, inputs, name):
    method = build(name)
    together, _ = method.step(method.init(), inputs, 0)
    # matrix products of another batch size round differently
    assert torch.allclose(together.output, answers(method, inputs, 1), atol=1e-4)
    assert torch.equal(together.output.argmax(-1), answers(method, inputs, 1).argmax(-1))


@pytest.mark.parametrize("name", SINGLE)
def test_ids_default_to_the_content(build, inputs, name):
    model = AdaptedModel(build(name))
    assert torch.equal(model(inputs.images)[3:5], model(inputs.images[3:5]))


@pytest.mark.parametrize("name", ["diffusion-tta", "diffusion-classifier"])
def test_seed_and_id_matter(build, inputs, name):
    method = build(name, strategy="uniform")
    base, _ = method.step(method.init(), inputs[:1], 0)
    other, _ = method.step(method.init(), inputs[:1], 1)
    renamed, _ = method.step(method.init(), Inputs(inputs.images[:1], ["another"]), 0)
    assert not torch.equal(base.output, other.output)
    assert not torch.equal(base.output, renamed.output)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", METHODS)
def test_evaluation_loops_run_without_gradients(build, inputs, name, mode):
    model = AdaptedModel(build(name), online=True)
    expected = [model(inputs.images, inputs.ids), model(inputs.images, inputs.ids)]
    model.reset()
    with mode():
        assert all(torch.equal(model(inputs.images.clone(), inputs.ids), y) for y in expected)


@pytest.mark.parametrize("name", METHODS)
def test_the_users_models_are_bit_identical_afterwards(build, own, prior, inputs, name):
    predictor = own(name)
    before = copy.deepcopy(predictor.state_dict())
    prior_before = copy.deepcopy(prior.state_dict())
    flags = [p.requires_grad for p in predictor.parameters()]
    predictor.train()
    method = build(name)
    state = method.init()
    for _ in range(3):
        _, state = method.step(state, inputs, 0)
    assert all(torch.equal(before[key], value) for key, value in predictor.state_dict().items())
    assert all(torch.equal(prior_before[key], value) for key, value in prior.state_dict().items())
    assert [p.requires_grad for p in predictor.parameters()] == flags
    assert all(module.training for module in predictor.modules())
    assert all(p.grad is None for p in predictor.parameters())


@pytest.mark.parametrize("name", ["tent", "eta", "sar", "deyo", "roid", "cotta", "diffusion-tta", "dusa"])
def test_online_state_is_carried_and_episodic_is_not(build, inputs, name):
    method = build(name, learning_rate=0.05)
    online, episodic = AdaptedModel(method, online=True), AdaptedModel(method)
    first = online(inputs.images, inputs.ids)
    second = online(inputs.images, inputs.ids)
    assert not torch.allclose(first, second)
    assert torch.equal(episodic(inputs.images, inputs.ids), episodic(inputs.images, inputs.ids))
    online.reset()
    assert torch.equal(online(inputs.images, inputs.ids), first)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_leaves_its_input_state_alone(build, inputs, name):
    method = build(name)
    state = method.init()
    _, after = method.step(state, inputs, 0)
    again, _ = method.step(state, inputs, 0)
    once_more, _ = method.step(after, inputs, 0)  # carrying on must not disturb `state` either
    repeat, _ = method.step(state, inputs, 0)
    assert torch.equal(again.output, repeat.output)
    assert once_more.output.shape == repeat.output.shape


@pytest.mark.parametrize("name", METHODS)
def test_costs_are_one_per_image(build, inputs, name):
    method = build(name)
    prediction, _ = method.step(method.init(), inputs, 0)
    assert len(prediction.costs) == len(inputs)
    expected = {
        "diffusion-tta": (8, 8),
        "diffusion-classifier": (32, 0),
        "dusa": (3, 0),
        "diffpure": (3, 0),
        "dda": (3, 3),
        "gda": (3, 3),
        "sda": (3, 3),
        "sda-tta": (8 + 3 + 8, 8 + 3 + 8),
    }.get(name, (0, 0))
    if name == "canonical":  # as many as its search took
        expected = (prediction.costs[0].nfe_forward, 0)
        assert 0 < expected[0] <= method.evaluations
    assert (prediction.costs[0].nfe_forward, prediction.costs[0].nfe_backward) == expected
    assert len(concatenate([prediction, prediction]).costs) == 2 * len(inputs)


def test_a_frozen_view_shares_memory_and_nothing_else(prior):
    """A prior of gigabytes is not copied for every method, and the user's own flags stay as they were."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).train()
    view = frozen_view(module)
    for mine, theirs in zip(view.state_dict().values(), module.state_dict().values(), strict=True):
        assert mine.data_ptr() == theirs.data_ptr()
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not any(parameter.requires_grad for parameter in view.parameters())
    assert module.training
    assert not view.training
