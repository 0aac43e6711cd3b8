"""diffcern: pre-trained diffusion models as a second opinion on what an image shows.

    import diffcern

    predictor, prior = diffcern.load_predictor("embedded:digits"), diffcern.load_prior("embedded:digits")
    model = diffcern.adapt(predictor, prior)        # a torch module: adapts to each image, then predicts
    logits = model(images)                          # [B, 3, H, W] in [0, 1] -> [B, K]

What is listed in `__all__` is the public interface; everything else may move.
"""

from diffcern.adapted import AdaptedModel, adapt
from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.draws import Draws, draw
from diffcern.errors import DiffcernError, UsageError
from diffcern.likelihood import condition_gradient, score
from diffcern.methods import METHODS, build_method
from diffcern.methods.presets import preset_options
from diffcern.predictors import Predictor, load_predictor
from diffcern.priors import GaussianMixturePrior, Prior, load_prior
from diffcern.tasks import Classification
from diffcern.types import Condition, Cost, Denoised, Inputs, Prediction, Record

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "AdaptedModel",
    "Classification",
    "Condition",
    "Cost",
    "Denoised",
    "DiffcernError",
    "Draws",
    "GaussianMixturePrior",
    "Inputs",
    "Prediction",
    "Predictor",
    "Prior",
    "Record",
    "UsageError",
    "adapt",
    "build_method",
    "condition_gradient",
    "draw",
    "load_dataset",
    "load_predictor",
    "load_prior",
    "preset_options",
    "score",
    "shift",
]
