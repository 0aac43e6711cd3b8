"""
Something is in front of it: can the prior tell, and paint what is behind?
==========================================================================

A black patch on black ground, specks, a ground that is not black: parts of a picture that do not show it. A
:doc:`prior </methods/canonical-views>` sees the picture behind some noise, expects something else there, paints it, and
says by how much that is likelier.
"""

import matplotlib.pyplot as plt
import torch

import diffcern
from diffcern.canonical import canonical_view
from diffcern.methods import build_method
from diffcern.tasks import Classification
from diffcern.types import Inputs

predictor = diffcern.load_predictor("embedded:digits")
prior = diffcern.load_prior("embedded:digits")
data = diffcern.load_dataset("embedded:digits")
task = Classification.joining(predictor, prior)
method = build_method("canonical", predictor, prior, task, {"views": ("light",), "inpaint": True, "budget": 160})
cases = [("occlusion", 0), ("occlusion", 5), ("pepper", 8), ("clutter", 1), ("clean", 5)]

# %%
# What is hidden is white in the third column. In 200 clean ones nothing is (``diffcern calibrate views``).

figure, axes = plt.subplots(len(cases), 4, figsize=(6.4, 8.2))
with torch.no_grad():
    for row, (name, index) in zip(axes, cases, strict=True):
        sample = data[index]
        severity = 0 if name == "clean" else 4
        image = diffcern.shift(sample.image, name, severity, seed=0, id=sample.id)[None]
        view = canonical_view(prior, image, sample.id, method.search, looked_at=predictor.view)
        before = predictor(image).argmax().item()
        after = method.step(method.init(), Inputs(image, [sample.id]), 0)[0].output.argmax().item()
        hidden = view.hidden
        shown = [sample.image, image[0]]
        shown += [hidden.mask.hidden[0].expand(3, -1, -1), prior.decode(hidden.latent)[0]] if hidden else []
        for axis, picture in zip(row, shown, strict=False):  # nothing was hidden: two pictures
            axis.imshow(picture.clamp(0, 1).permute(1, 2, 0), vmin=0, vmax=1)
        row[0].set_ylabel(name)
        row[0].set_xlabel(f"a {sample.target}", fontsize=9)
        row[1].set_xlabel(f"taken for a {before}", fontsize=9)
        row[2].set_xlabel(f"{view.hidden_nats:+.0f} nats" if hidden else "nothing", fontsize=9)
        row[3].set_xlabel(f"a {after}", fontsize=9)
for axis, title in zip(axes[0], ("taken as", "given", "hidden", "painted"), strict=True):
    axis.set_title(title)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
figure.tight_layout()
plt.show()

# %%
# ``diffcern.adapt(predictor, prior, method="canonical", inpaint=True, budget=180)`` does this for a batch.
