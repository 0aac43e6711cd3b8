"""
How do I add a method of my own?
================================

A method is a class with ``init`` and ``step``. It is named by the module and the class, and nothing is registered; then
it stands in a bench's table like any other. See :doc:`extend </extend>`.
"""

import matplotlib.pyplot as plt
import torch

import diffcern
from diffcern.methods.base import call, frozen_copy


class Shaken:
    """The mean answer over small shifts of an image."""

    needs_batch = False  # an image's answer does not depend on its batch
    tasks = ("classification",)

    def __init__(self, predictor: diffcern.Predictor, pixels: int = 1) -> None:
        self.predictor, self.pixels = frozen_copy(predictor), pixels

    def init(self) -> None:
        """The state before any image. There is none."""

    @torch.no_grad()
    def step(self, state: None, inputs: diffcern.Inputs, seed: int) -> tuple[diffcern.Prediction, None]:
        steps = range(-self.pixels, self.pixels + 1)
        views = [inputs.images.roll((dy, dx), (-2, -1)) for dy in steps for dx in steps]
        output = torch.stack([call(self.predictor, {}, view).softmax(-1) for view in views]).mean(0).log()
        return diffcern.Prediction(output, [diffcern.Cost()] * len(inputs)), None


# %%
# Here the class stands in this script; on a command line it is ``--method my_module:Shaken --set pixels=2``.
# Does it help? Hardly: a method that loses stays in the table.

predictor = diffcern.load_predictor("embedded:digits")
data = diffcern.load_dataset("embedded:digits")
targets = torch.tensor(data.targets[:100])
found = {"source": [], "shaken": []}
shifts = ("noise", "blur", "occlusion", "rotation")
for shift in shifts:
    images = torch.stack([diffcern.shift(data[i].image, shift, 4, seed=0, id=data[i].id) for i in range(100)])
    found["source"].append((predictor(images).argmax(-1) == targets).float().mean())
    model = diffcern.AdaptedModel(Shaken(predictor))
    found["shaken"].append((model(images).argmax(-1) == targets).float().mean())

figure, axis = plt.subplots(figsize=(7, 2.8))
for k, (name, values) in enumerate(found.items()):
    places, colour = [i + 0.4 * k - 0.2 for i in range(4)], ("#b8bcc4", "#2166ac")[k]
    axis.bar(places, [100 * value for value in values], 0.4, label=name, color=colour)
axis.set_xticks(range(4), shifts)
axis.set(ylabel="accuracy, % of 100", ylim=(0, 100))
axis.legend(fontsize=8, ncols=2)
plt.show()
