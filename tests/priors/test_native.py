import pytest
import torch
from diffusers import DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler

from diffcern.errors import DiffcernError
from diffcern.likelihood import denoising_error
from diffcern.priors import load_prior
from diffcern.priors.native import NativeConfig, NativePrior, native_prior
from diffcern.priors.own import OBJECTIVES
from diffcern.priors.spatial import Maps
from diffcern.types import Condition

NAMES = ("a", "b", "c")


def tiny(architecture="dit", kind="x0", channels=3, maps=None):
    torch.manual_seed(0)
    config = NativeConfig(architecture, kind, 8, channels, NAMES, maps)
    prior = native_prior(config, width=16, depth=1, heads=2, patch=4)
    for parameter in prior.parameters():  # adaLN-Zero starts silent; make every path speak
        parameter.data.normal_(std=0.2)
    return prior


@pytest.fixture(params=["dit", "unet"])
def prior(request):
    return tiny(request.param)


def test_schedule_is_variance_preserving_and_the_schedulers_own(prior):
    from diffusers import DDPMScheduler

    assert torch.allclose(prior.alphas**2 + prior.sigmas**2, torch.ones(1000), atol=1e-6)
    scheduler = DDPMScheduler.from_config(prior.scheduler.config)
    x, e, t = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.tensor([0, 10, 500, 999])
    assert torch.allclose(prior.add_noise(x, t, e), scheduler.add_noise(x, e, t), atol=1e-5)


@pytest.mark.parametrize("architecture", ["dit", "unet"])
def test_a_flow_is_straight_and_the_schedulers_own(architecture, tmp_path):
    """x_t = (1 - s) x0 + s eps at s = 1/1000 ... 1, of which the network is told 1000 s; saved and read as such."""
    made = tiny(architecture, "flow")
    made.save_pretrained(tmp_path, torch.float32)
    prior = load_prior(str(tmp_path))
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "scheduler")
    assert prior.kind == "flow"
    assert torch.allclose(prior.times, scheduler.timesteps.flip(0), rtol=1e-6)
    x, e = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    t, told = torch.tensor([0, 9, 499, 999]), torch.tensor([1.0, 10, 500, 1000])
    x_t = prior.add_noise(x, t, e)
    assert torch.allclose(x_t, scheduler.scale_noise(x, scheduler.timesteps.flip(0)[t], e), atol=1e-6)
    null = torch.eye(4)[[3] * 4]
    velocity = prior.denoiser(x_t, timestep=told, class_labels=null).sample
    assert torch.equal(prior(x_t, t, Condition()).output, velocity)
    assert torch.equal(made(x_t, t, Condition()).output, velocity)
    error = denoising_error(prior(x_t, t, Condition()), x, e, t / 1000, "flow")
    assert torch.allclose(error, (velocity - (e - x)).square().flatten(1).mean(1))


def test_a_flow_and_its_files_agree(tmp_path):
    tiny(kind="flow").save_pretrained(tmp_path / "flow")
    tiny(kind="v").save_pretrained(tmp_path / "v")
    for one, other, missing in (("flow", "v", "beta_schedule"), ("v", "flow", "shift")):
        config = (tmp_path / one / "prior.json").read_text()
        (tmp_path / one / "prior.json").write_text(config.replace(f'"{one}"', f'"{other}"'))
        with pytest.raises(DiffcernError, match=f"the key '{missing}' is missing"):
            load_prior(str(tmp_path / one))


def test_schedule_stays_fp32_in_half_precision(prior):
    alphas = prior.alphas.clone()
    prior.bfloat16()
    assert torch.equal(prior.alphas, alphas)


def test_views_agree_for_every_kind():
    x0, e, t = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), torch.tensor([100, 800])
    for kind in OBJECTIVES:
        prior = tiny(kind=kind)
        x_t = prior.add_noise(x0, t, e)
        d = prior(x_t, t, Condition())
        assert torch.allclose(d.alpha * d.x0 + d.sigma * d.eps, x_t, atol=1e-4)
        exact = d.__class__(d.target(x0, e), kind, x_t, d.alpha, d.sigma)
        assert torch.allclose(exact.x0, x0, atol=1e-4)
        assert torch.allclose(exact.eps, e, atol=1e-4)


def test_one_hot_is_the_integer_label():
    prior = tiny("dit")
    plain = DiTTransformer2DModel.from_config(prior.denoiser.config)
    plain.load_state_dict(prior.denoiser.state_dict())
    plain.eval()
    x, t = torch.randn(4, 3, 8, 8), torch.tensor([5, 100, 500, 900])
    labels = torch.tensor([0, 1, 2, 3])  # 3: the null class
    expected = plain(x, timestep=t, class_labels=labels).sample
    one_hot = torch.nn.functional.one_hot(labels, 4).float()
    assert torch.allclose(
        prior.denoise(x, t, Condition(classes=one_hot)), expected, atol=1e-5
    )  # another attention kernel
    unconditional = prior.denoise(x[3:], t[3:], Condition())
    assert torch.allclose(unconditional, expected[3:], atol=1e-5)  # another batch size: rounding of the products


def test_gradient_reaches_the_condition_and_no_weight(prior):
    classes = torch.full((2, 3), 1 / 3, requires_grad=True)
    out = prior(torch.randn(2, 3, 8, 8), torch.tensor([100, 700]), Condition(classes=classes))
    out.x0.square().sum().backward()
    assert torch.isfinite(classes.grad).all()
    assert (classes.grad.abs().sum(1) > 0).all()
    assert all(p.grad is None for p in prior.parameters())


def test_save_and_load(prior, tmp_path):
    prior.clean_errors = torch.linspace(0.1, 0.2, 101)
    prior.save_pretrained(tmp_path, torch.float32)
    again = load_prior(str(tmp_path))
    assert torch.allclose(again.clean_errors, prior.clean_errors, atol=1e-6)
    assert again.class_names == NAMES
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 600])
    assert torch.equal(again(x, t, Condition()).output, prior(x, t, Condition()).output)
    assert not list(tmp_path.rglob("*.bin"))


def test_encode_any_size_and_grey():
    prior = tiny(channels=1)
    latents = prior.encode(torch.rand(2, 3, 40, 23))
    assert latents.shape == (2, 1, 8, 8)
    assert latents.min() >= -1
    assert latents.max() <= 1
    assert prior.decode(latents).shape == (2, 3, 8, 8)


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(DiffcernError, match=r"unknown embedded prior.*embedded:digits"):
        load_prior("embedded:digit")
    with pytest.raises(DiffcernError, match=r"neither a prior\.json"):
        load_prior(str(tmp_path))
    tiny().save_pretrained(tmp_path)
    weights = next((tmp_path / "denoiser").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DiffcernError, match="truncated"):
        load_prior(str(tmp_path))


def test_a_pickle_is_refused(tmp_path):
    tiny().save_pretrained(tmp_path)
    weights = next((tmp_path / "denoiser").glob("*.safetensors"))
    weights.unlink()
    torch.save({"x": torch.zeros(1)}, weights.with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(DiffcernError, match="safetensors"):
        NativePrior.from_pretrained(tmp_path)


@pytest.mark.parametrize("architecture", ["dit", "unet"])
def test_maps_are_concatenated(architecture, tmp_path):
    tiny(architecture, maps=Maps("segmentation", ("a", "b"))).save_pretrained(tmp_path)
    prior = load_prior(str(tmp_path))
    x, t, maps = torch.randn(1, 3, 8, 8), torch.tensor([5]), torch.rand(1, 2, 8, 8)
    weights = torch.tensor([[0.0, 0, 0, 1]])
    expected = prior.denoiser(torch.cat([x, maps], 1), timestep=t, class_labels=weights).sample
    assert torch.equal(prior(x, t, Condition(spatial=maps)).output, expected)
    none = prior(x, t, Condition()).output
    assert torch.equal(none, prior(x, t, Condition(spatial=torch.zeros_like(maps))).output)
    assert not torch.allclose(none, expected, atol=1e-4)
