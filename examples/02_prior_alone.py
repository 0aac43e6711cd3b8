"""
Can a diffusion model classify without a classifier?
====================================================

It asks, for each label: told that this is what the image shows, how well is the image denoised? The label of least
error is the answer, and the margin to the second says how sure it is:
:doc:`Diffusion Classifier </methods/diffusion-classifier>`.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import diffcern
from diffcern.data import encode_png

data = diffcern.load_dataset("embedded:digits")
samples = [data[i] for i in (3, 41, 23, 77, 8)]

# %%
# ``diffcern.classify`` takes what the command line takes: a folder of images, and labels to tell apart.

with tempfile.TemporaryDirectory() as folder:
    for sample in samples:
        noisy = diffcern.shift(sample.image, "noise", 3, seed=0, id=sample.id)
        Path(folder, f"{sample.id}.png").write_bytes(encode_png(noisy))
    table = diffcern.classify(folder, prior="embedded:digits")

# %%
# A row for each image: the ranked labels, by how much the first stands out from its closest rival, and what the answer
# cost: labels that are clearly worse leave early.

rows = {row["id"].removesuffix(".png"): row for row in table.rows}
figure, axes = plt.subplots(1, len(samples), figsize=(9, 2.4))
for axis, sample in zip(axes, samples, strict=True):
    row = rows[sample.id]
    axis.imshow(diffcern.shift(sample.image, "noise", 3, seed=0, id=sample.id).permute(1, 2, 0))
    sure = row["margin"] / row["margin_standard_error"]
    said = f"truth {sample.target}, says {row['label']}\n{sure:.1f} standard errors\n{row['nfe_forward']} evaluations"
    axis.set_title(said, fontsize=9)
    axis.axis("off")
plt.show()
