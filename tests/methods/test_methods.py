"""Each method against its equation."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from diffcern.draws import draw
from diffcern.errors import DiffcernError, UsageError
from diffcern.familiarity import clean_errors, strangeness, threshold
from diffcern.kinds import QUESTION_ANSWERING
from diffcern.methods import METHODS, build_method, checked_options
from diffcern.methods.batch_norm import with_batch_statistics
from diffcern.methods.diffusion_classifier import DiffusionClassifier, stage_indices
from diffcern.methods.diffusion_tta import DiffusionTTA, rival_z
from diffcern.methods.parameters import choose_parameters
from diffcern.methods.presets import PRESETS, preset_options
from diffcern.predictors import Predictor
from diffcern.types import Condition, Cost, Inputs


def test_batch_statistics_are_training_mode_batchnorm(predictor, inputs):
    adapted = with_batch_statistics(predictor)(inputs.images)
    predictor.train()
    assert torch.allclose(adapted, predictor(inputs.images), atol=1e-5)


def test_batch_statistics_mix_with_the_source(predictor, inputs):
    source = predictor(inputs.images)
    many = with_batch_statistics(predictor, source_count=1e9)(inputs.images)
    assert torch.allclose(many, source, atol=1e-4)
    layer = nn.BatchNorm2d(2)
    layer.running_mean.copy_(torch.tensor([1.0, -1.0]))
    x = torch.randn(4, 2, 3, 3)
    mixed = with_batch_statistics(nn.Sequential(layer), source_count=12.0)(x)
    mean = 0.75 * layer.running_mean + 0.25 * x.mean((0, 2, 3))
    var = 0.75 * layer.running_var + 0.25 * x.var((0, 2, 3), correction=1)  # unbiased, as published
    expected = (x - mean.view(1, 2, 1, 1)) / (var.view(1, 2, 1, 1) + layer.eps).sqrt()
    assert torch.allclose(mixed, expected, atol=1e-6)


def test_tent_minimises_entropy_over_norm_affine_only(predictor, inputs):
    method = build_method("tent", predictor, None, None, {"learning_rate": 0.01})
    state = method.init()
    assert all("norm" in name or name.startswith("model.") for name in state.parameters)
    assert {p.ndim for p in state.parameters.values()} == {1}
    entropies = []
    for _ in range(5):
        prediction, state = method.step(state, inputs, 0)
        p = prediction.probabilities
        entropies.append(-(p * p.log()).sum(-1).mean().item())
    assert entropies == sorted(entropies, reverse=True)


def test_tent_answers_with_the_logits_from_before_the_step(predictor, inputs):
    tent = build_method("tent", predictor, None, None, {})
    adapt = build_method("bn-adapt", predictor, None, None, {})
    assert torch.allclose(tent.step(tent.init(), inputs, 0)[0].output, adapt.step(None, inputs, 0)[0].output, atol=1e-5)


def test_parameter_choices(predictor):
    everything = choose_parameters(predictor, "all")
    norm, last = choose_parameters(predictor, "norm"), choose_parameters(predictor, "last")
    assert len(everything) == len(list(predictor.parameters()))
    assert sum(v.numel() for v in last.values()) == 16 * 4 + 4
    assert len(norm) == 2 * sum(isinstance(m, nn.BatchNorm2d) for m in predictor.modules())
    with pytest.raises(UsageError, match="'all'"):
        choose_parameters(predictor, "al")
    with pytest.raises(DiffcernError, match="no parameters"):
        choose_parameters(nn.Linear(2, 2), "norm")


def test_batch_statistics_can_be_constants(predictor, inputs):
    """The same answer; but as published for MEMO no gradient runs through them."""
    layer = nn.BatchNorm2d(3)
    x = inputs.images.clone().requires_grad_()
    through, constant = (with_batch_statistics(nn.Sequential(layer), 4.0, through=flag)(x) for flag in (True, False))
    assert torch.equal(through, constant)
    slope = torch.autograd.grad(constant.square().sum(), x, retain_graph=True)[0]
    variance = 4 / 16 * layer.running_var + 12 / 16 * inputs.images.var((0, 2, 3))
    expected = 2 * constant / (variance.view(1, 3, 1, 1) + layer.eps).sqrt()
    torch.testing.assert_close(slope, expected.detach())
    assert not torch.allclose(slope, torch.autograd.grad(through.square().sum(), x)[0])


WITHOUT = {  # networks whose normalisation knows no batch
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(192), nn.Linear(192, 4)),
    "frozen": lambda: nn.Sequential(FrozenBatchNorm2d(3), nn.Flatten(), nn.Linear(192, 4)),
    "none": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)),
}


@pytest.mark.parametrize("kind", WITHOUT)
@pytest.mark.parametrize(("name", "options"), [("bn-adapt", {}), ("diffusion-tta", {"batch_statistics": True})])
def test_batch_statistics_of_a_network_that_has_none_are_refused(kind, name, options, prior, task):
    """They were source's answer to the bit, and stood in the table as if something had been tried."""
    predictor = Predictor(WITHOUT[kind](), task.class_names)
    with pytest.raises(DiffcernError, match="has none: it would answer as source does"):
        build_method(name, predictor, prior, task, options)


def test_tents_sgd_is_nesterovs(predictor, inputs):
    """The published configuration of ImageNet; two steps, by torch's own optimiser."""
    options = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "steps": 2}
    method = build_method("tent", predictor, None, None, options)
    _, state = method.step(method.init(), inputs, 0)
    predictor.train()  # batch statistics
    affine = [p for m in predictor.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    optimizer = torch.optim.SGD(affine, 0.1, 0.9, nesterov=True)
    for _ in range(2):
        logits = predictor(inputs.images)
        optimizer.zero_grad()
        (-(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()).backward()
        optimizer.step()
    for value, expected in zip(state.parameters.values(), affine, strict=True):
        torch.testing.assert_close(value, expected.detach(), atol=1e-5, rtol=1e-4)


def test_attention_and_non_leaf_parameters_are_adapted(prior, task, inputs):
    """The published code skips in_proj weights, layer scale and embeddings on non-leaf modules."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8))
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            tokens = x.flatten(2)[:, :, :64].mean(1).view(-1, 8, 8)
            return self.head((self.attention(tokens, tokens, tokens)[0] * self.scale).mean(1))

    torch.manual_seed(0)
    net = Net()
    predictor = Predictor(net, task.class_names)
    method = DiffusionTTA(predictor, prior, task, steps=1, draws=8, optimizer="sgd", learning_rate=1.0)
    before = method.init().predictor.parameters
    _, after = method.step(method.init(), inputs[:1], 0)
    moved = {name for name, value in after.predictor.parameters.items() if not torch.equal(value, before[name])}
    assert {f"model.{name}" for name in ("scale", "attention.in_proj_weight", "head.weight", "head.bias")} <= moved


def test_diffusion_tta_step_is_the_equations_gradient(predictor, prior, task, inputs):
    """One SGD step equals theta - lr * d L / d theta of the uncut loss, by autograd through everything."""
    lr, image = 0.1, inputs[:1]
    method = DiffusionTTA(predictor, prior, task, steps=1, draws=6, optimizer="sgd", momentum=0.0, learning_rate=lr)
    _, state = method.step(method.init(), image, 7)
    z = prior.encode(image.images)
    d = draw("uniform", 6, z, image.ids, seed=7, num_timesteps=1000)
    c = torch.softmax(predictor(image.images), -1).expand(6, -1)
    t, e = d.timesteps[0], d.noise[0]
    eps = prior(prior.add_noise(z.expand(6, -1, -1, -1), t, e), t, Condition(classes=c)).eps
    loss = (e - eps).square().mean()
    gradients = torch.autograd.grad(loss, list(predictor.parameters()))
    for (name, theta), g in zip(predictor.named_parameters(), gradients, strict=True):
        expected = theta - lr * g
        assert torch.allclose(state.predictor.parameters[name], expected, atol=1e-6 + 1e-4 * lr * g.abs().max()), name


def test_diffusion_tta_lowers_the_loss_and_corrects(predictor, prior, task, inputs, targets):
    method = DiffusionTTA(
        predictor, prior, task, steps=40, draws=32, strategy="stratified", resample=False,
        optimizer="sgd", learning_rate=0.3, weighting="x0",
    )  # fmt: skip
    before = (predictor(inputs.images).argmax(-1) == targets).float().mean()
    hits = 0
    for i in range(len(inputs)):
        prediction, _ = method.step(method.init(), inputs[i : i + 1], 0)
        assert prediction.trace[0][-1] < prediction.trace[0][0]
        hits += int(prediction.output.argmax() == targets[i])
    assert before < 0.6
    assert hits / len(inputs) > 0.9


def test_top_k_keeps_the_first_prediction(predictor, prior, task, inputs):
    method = DiffusionTTA(predictor, prior, task, steps=3, draws=4, top_k=2, optimizer="sgd", learning_rate=1.0)
    prediction, _ = method.step(method.init(), inputs[:1], 0)
    first = predictor(inputs.images[:1]).topk(2).indices.flatten().tolist()
    assert sorted(prediction.probabilities[0].nonzero().flatten().tolist()) == sorted(first)


def test_adapting_the_prior_moves_it(predictor, task):
    from diffcern.priors.native import NativeConfig, native_prior

    torch.manual_seed(0)
    prior = native_prior(NativeConfig("dit", "x0", 8, 3, tuple("0123")), width=16, depth=1, heads=2, patch=4)
    inputs = Inputs(torch.rand(2, 3, 8, 8), ["a", "b"])
    options = {"steps": 1, "draws": 4, "adapt_prior": True, "prior_learning_rate": 1e-3}
    method = build_method("diffusion-tta", predictor, prior, task, options)
    before = method.init()
    _, after = method.step(before, inputs, 0)
    name = "denoiser.proj_out_2.bias"
    assert not torch.equal(after.prior.parameters[name], before.prior.parameters[name])
    assert torch.equal(dict(prior.named_parameters())[name], before.prior.parameters[name])
    for dtype in (torch.bfloat16, torch.float16):  # a step of Adam is lost in the rounding of its weights
        with pytest.raises(UsageError, match=f"{dtype} is too coarse"):
            build_method("diffusion-tta", predictor, copy.deepcopy(prior).to(dtype), task, options)


def test_gate_leaves_a_certain_image_alone(predictor, prior, task, inputs, targets):
    """A predictor that is right and certain: no rival stands out, one evaluation, not a bit changed."""

    class Oracle(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(-20.0))
            self.register_buffer("means", prior.decode(prior.means).clone())

        def forward(self, images):
            return self.scale * (images[:, None] - self.means).square().flatten(2).mean(-1)

    oracle = Oracle()
    options = {"steps": 5, "draws": 16, "strategy": "stratified", "optimizer": "sgd", "learning_rate": 0.5}
    options |= {"weighting": "x0", "gate": 2.5}
    gated = build_method("diffusion-tta", Predictor(oracle, task.class_names), prior, task, options)
    prediction, state = gated.step(gated.init(), inputs[:1], 0)
    assert prediction.costs[0].nfe_forward == 16
    assert torch.equal(state.predictor.parameters["model.scale"], torch.tensor(-20.0))
    # a predictor that is certain and wrong is moved
    wrong = Oracle()
    wrong.means = wrong.means.roll(1, 0)
    gated = build_method("diffusion-tta", Predictor(wrong, task.class_names), prior, task, options)
    prediction, _ = gated.step(gated.init(), inputs[:1], 0)
    assert prediction.costs[0].nfe_forward > 16


def test_a_familiar_image_is_left_to_the_predictor(predictor, prior, task, inputs):
    """Below the threshold nothing moves; above it the method is the plain one. Where the draws of a step are as those
    of the clean errors, theirs are compared: others are asked for 16 more, and for no gradient."""
    options = {"steps": 2, "draws": 16, "strategy": "stratified", "optimizer": "sgd", "learning_rate": 0.5}
    plain = build_method("diffusion-tta", predictor, prior, task, options)
    expected, _ = plain.step(plain.init(), inputs[:1], 0)
    prior.clean_errors = torch.tensor([0.0] + [1e9] * 100)
    trusting = build_method("diffusion-tta", predictor, prior, task, {**options, "familiar": 0.5})
    prediction, _ = trusting.step(trusting.init(), inputs[:1], 0)
    assert torch.equal(prediction.output, predictor(inputs.images[:1]))
    assert prediction.costs[0] == Cost(16, 16)
    for few in ({"draws": 4}, {"span": (0.5, 1.0)}):
        trusting = build_method("diffusion-tta", predictor, prior, task, {**options, **few, "familiar": 0.5})
        prediction, _ = trusting.step(trusting.init(), inputs[:1], 0)
        assert torch.equal(prediction.output, predictor(inputs.images[:1]))
        assert prediction.costs[0] == Cost(16, 0)
        wary = build_method("diffusion-tta", predictor, prior, task, {**options, **few, "familiar": 0.0})
        plain = build_method("diffusion-tta", predictor, prior, task, {**options, **few})
        answers = [method.step(method.init(), inputs[:1], 0)[0] for method in (wary, plain)]
        assert torch.equal(answers[0].output, answers[1].output)
        assert answers[0].costs[0] == answers[1].costs[0] + Cost(16, 0)
    wary = build_method("diffusion-tta", predictor, prior, task, {**options, "familiar": 0.0})
    assert torch.equal(wary.step(wary.init(), inputs[:1], 0)[0].output, expected.output)


def test_strangeness_is_the_min_snr_error(predictor, prior, task, inputs):
    from diffcern.likelihood import condition_gradient

    latents, classes = prior.encode(inputs.images), torch.full((12, 4), 0.25)
    draws = draw("stratified", 8, latents, inputs.ids, seed=0, num_timesteps=1000, span=(0.2, 0.8))
    by_name = {
        name: condition_gradient(prior, latents, Condition(classes=classes), draws, weighting=name).losses
        for name in ("x0", "min-snr")
    }
    assert torch.allclose(strangeness(prior, by_name["x0"], draws, "x0"), by_name["min-snr"].mean(1), rtol=1e-4)


def test_familiar_is_a_share_of_the_clean_images(predictor, prior, task, inputs):
    """A share is a percentile of the clean profile; without a profile the option is refused."""
    targets = torch.arange(12) % 4
    with pytest.raises(UsageError, match=r"clean_errors\(prior, images, condition\)"):
        DiffusionTTA(predictor, prior, task, familiar=0.9)
    prior.clean_errors = clean_errors(prior, inputs.images, prior.hypotheses()[targets])
    assert prior.clean_errors.diff().ge(0).all()
    assert threshold(prior, 0.5) == pytest.approx(prior.clean_errors[50].item())
    assert threshold(prior, 0.995) == pytest.approx(prior.clean_errors[99:].mean().item())
    assert threshold(prior, 1.0) == pytest.approx(prior.clean_errors[100].item())
    with pytest.raises(UsageError, match="0 to 1"):
        threshold(prior, 97)


def test_rival_z_is_the_paired_t_statistic():
    g = torch.tensor([[[0.0, -1.0], [0.0, -3.0], [0.0, -2.0]]])  # moving mass from class 0 to 1: rates 1, 3, 2
    z = rival_z(Condition(classes=g), Condition(classes=torch.tensor([[0.9, 0.1]])))
    assert torch.allclose(z, torch.tensor([2.0 / (1.0 / 3**0.5)]))


def test_diffusion_classifier_is_bayes_on_the_exact_prior(prior, task, inputs, targets):
    method = build_method("diffusion-classifier", None, prior, task, {"draws": 64})
    prediction, _ = method.step(None, inputs, 0)
    bayes = prior.log_likelihood(prior.encode(inputs.images)).argmax(-1)
    assert torch.equal(prediction.output.argmax(-1), bayes)
    assert all(note["margin"] > 0 for note in prediction.notes)


@pytest.mark.parametrize(
    ("classes", "keep", "samples", "evaluations"),
    [
        (101, (20, 10, 5, 1), (20, 50, 100, 500), 5570),  # Food101
        (10, (5, 1), (50, 500), 2750),  # CIFAR-10
        (100, (20, 10, 5, 1), (20, 50, 100, 500), 5550),  # Aircraft
        (37, (5, 1), (25, 250), 2050),  # Pets
        (102, (20, 10, 5, 1), (20, 50, 100, 500), 5590),  # Flowers
        (10, (5, 1), (100, 500), 3000),  # STL-10
        (1000, (500, 50, 10, 1), (50, 100, 500, 1000), 124500),  # ImageNet
    ],
)
def test_staged_elimination_costs_what_the_paper_says(classes, keep, samples, evaluations):
    done, alive, spent = set(), classes, 0
    for survivors, count in zip(keep, samples, strict=True):
        new = set(stage_indices(samples[-1], count)) - done
        spent, done, alive = spent + alive * len(new), done | new, survivors
    assert spent == evaluations


def test_staged_elimination_agrees_and_costs_less(prior, task, inputs):
    exhaustive = build_method("diffusion-classifier", None, prior, task, {"draws": 64})
    staged = build_method("diffusion-classifier", None, prior, task, {"keep": (2, 1), "samples": (16, 64)})
    a, _ = exhaustive.step(None, inputs, 0)
    b, _ = staged.step(None, inputs, 0)
    assert torch.equal(a.output.argmax(-1), b.output.argmax(-1))
    assert b.costs[0].nfe_forward == 4 * 16 + 2 * 48


def test_bad_stages_are_refused(prior, task):
    with pytest.raises(UsageError, match="keeps 1"):
        DiffusionClassifier(prior, task, keep=(5,), samples=(50,))
    with pytest.raises(UsageError, match="grow"):
        DiffusionClassifier(prior, task, keep=(5, 1), samples=(50, 20))


def test_options_are_checked(predictor, prior, task):
    with pytest.raises(UsageError, match=r"unknown option of diffusion-tta 'step'.*'steps'"):
        build_method("diffusion-tta", predictor, prior, task, {"step": 3})
    with pytest.raises(UsageError, match="'steps' of diffusion-tta"):
        build_method("diffusion-tta", predictor, prior, task, {"steps": "many"})
    with pytest.raises(UsageError, match=r"unknown method 'tnt'.*'tent'"):
        build_method("tnt", predictor, prior, task, {})
    with pytest.raises(DiffcernError, match="needs a prior"):
        build_method("diffusion-tta", predictor, None, task, {})


def test_presets_are_valid_options():
    for preset in PRESETS:
        for task in ("classification", "segmentation", "depth", QUESTION_ANSWERING):
            for name in METHODS:
                checked_options(name, preset_options(name, preset, task))


def test_a_users_own_method_by_dotted_path(predictor):
    method = build_method("diffcern.methods.source:Source", predictor, None, None, {})
    assert method.needs_batch is False


def test_nan_logits_are_an_error(predictor, inputs):
    method = build_method("source", predictor, None, None, {})
    with pytest.raises(DiffcernError, match="NaN"):
        method.step(None, Inputs(inputs.images * torch.nan, inputs.ids), 0)


def test_batch_statistics_keep_timms_activations():
    """timm's BatchNormAct2d holds the activation; with N -> infinity the copy must equal the source."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("efficientnet_b0", num_classes=4).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(with_batch_statistics(model, source_count=1e12)(images), model(images), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tent", {"steps": 0}, "steps"),
        ("diffusion-tta", {"rows": 0}, "rows"),
        ("diffusion-tta", {"strategy": "foo"}, "stratified"),
        ("diffusion-tta", {"weighting": "foo"}, "min-snr"),
        ("diffusion-tta", {"momentum": -1.0}, "momentum"),
        ("diffusion-tta", {"learning_rate": float("inf")}, "finite"),
        ("diffusion-tta", {"gate": 2.0, "draws": 1}, "gate"),
        ("diffusion-tta", {"temperature": 0.0}, "temperature"),
        ("diffusion-classifier", {"keep": (0, 1), "samples": (2, 4)}, "at least 1"),
        ("diffusion-classifier", {"norm": "l3"}, "l1"),
    ],
)
def test_odd_option_values_are_refused_before_any_work(predictor, prior, task, name, options, message):
    with pytest.raises(UsageError, match=message):
        build_method(name, predictor, prior, task, options)


def test_a_subclass_without_a_constructor_is_a_method_too(predictor, prior, task, monkeypatch):
    from diffcern import methods

    class Mine(DiffusionTTA):
        pass

    monkeypatch.setitem(methods.METHODS, "mine", Mine)
    assert build_method("mine", predictor, prior, task, {"steps": 2}).steps == 2


def test_nan_images_and_priors_are_an_error(prior, task, inputs):
    method = build_method("diffusion-classifier", None, prior, task, {"draws": 4})
    with pytest.raises(DiffcernError, match=r"NaN.*prior's weights"):
        method.step(None, Inputs(inputs.images * torch.nan, inputs.ids), 0)


def test_rivals_out_of_reach_keep_no_gate_open():
    g = torch.tensor([[[0.0, -5.0], [0.0, -5.1], [0.0, -4.9]]])
    out_of_reach = rival_z(Condition(classes=g), Condition(classes=torch.tensor([[1.0, 0.0]])))
    assert out_of_reach.item() == 0.0  # only the top class itself is left


def test_every_method_declares_what_it_is():
    from diffcern.kinds import KINDS
    from diffcern.methods import METHODS, reads_batch
    from diffcern.methods.base import Method

    for name, method in METHODS.items():
        assert issubclass(method, Method), name
        assert set(method.tasks) <= KINDS.keys()
    batches = ["bn-adapt", "tent", "eta", "eata", "sar", "deyo", "roid", "cotta", "foa"]
    assert [name for name in METHODS if reads_batch(name, {})] == batches
    assert reads_batch("diffusion-tta", {"batch_statistics": True})
