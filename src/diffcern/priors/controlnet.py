"""A ControlNet beside Stable Diffusion: how it is called, and what its name says that it reads.

    BASE+controlnet:NAME                              a picture, of what nobody says
    BASE+controlnet-seg:NAME+palette:FILE.json        classes, each in its colour of the palette
    BASE+controlnet-depth:NAME                        depth, in three equal channels

No file of a published ControlNet says what its picture shows, and none holds the palette that it was trained with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from diffcern.errors import DiffcernError, UsageError, unknown
from diffcern.priors.spatial import Maps
from diffcern.texts import read_json

if TYPE_CHECKING:
    from diffusers import ControlNetModel, UNet2DConditionModel

NAMED = re.compile(r"(?P<base>.*?)\+controlnet(?P<reads>-[^:]*)?:(?P<name>.*?)(?:\+palette:(?P<palette>.*))?")
COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
Colour = tuple[float, ...]  # red, green, blue in [0, 1]
WHITE = (1.0, 1.0, 1.0)


class ControlledUNet(nn.Module):
    """A U-Net with a ControlNet (Zhang et al. 2023, arXiv 2302.05543), called like the U-Net alone.

    spatial: `[B, 3, H, W]` in [0, 1], at the size of the images; None leaves the ControlNet out.
    """

    def __init__(self, unet: UNet2DConditionModel, controlnet: ControlNetModel) -> None:
        super().__init__()
        self.unet, self.controlnet = unet, controlnet
        self.config = unet.config

    def forward(
        self, x: Tensor, times: Tensor, encoder_hidden_states: Tensor, spatial: Tensor | None = None, **added: Any
    ) -> Any:
        if spatial is None:
            return self.unet(x, times, encoder_hidden_states, **added)
        heard = {name: value for name, value in added.items() if name != "timestep_cond"}  # guidance: the U-Net alone
        down, middle = self.controlnet(
            x, times, encoder_hidden_states, controlnet_cond=spatial.to(x.dtype), return_dict=False, **heard
        )
        return self.unet(
            x,
            times,
            encoder_hidden_states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            **added,
        )


@dataclass(frozen=True)
class Control:
    """A ControlNet by name. maps, colours: what it reads, as of `Prior`; None and () where nobody says."""

    name: str
    maps: Maps | None = None
    colours: tuple[Colour, ...] = ()


def parse_control(name: str) -> tuple[str, Control | None]:
    """The name of the prior below, and the ControlNet beside it; see this module's docstring.

    Raises UsageError for another form, and as `read_palette`.
    """
    match = NAMED.fullmatch(name)
    if match is None:
        return name, None
    base, reads, control, palette = match.group("base", "reads", "name", "palette")
    if not control:
        raise UsageError(f"nothing follows +controlnet{reads or ''}: in {name}; name a ControlNet there")
    if reads not in (None, "-seg", "-depth"):
        raise unknown("ControlNet", f"controlnet{reads}", ["controlnet", "controlnet-seg", "controlnet-depth"])
    if reads != "-seg":
        if palette is not None:
            raise UsageError(
                f"a palette is for classes: +palette belongs to +controlnet-seg, not to {name}: leave it out"
            )
        return base, Control(control, Maps("depth"), (WHITE,)) if reads else Control(control)
    if not palette:
        raise UsageError(
            "+controlnet-seg reads classes by the colours that it was trained with (for ADE20K's, see its "
            'publication), and no file of it holds these: write {"wall": "#787878", "sky": "#06e6e6", ...} into a '
            f"JSON file and add it, {name}+palette:FILE.json"
        )
    colours = read_palette(Path(palette).expanduser())
    return base, Control(control, Maps("segmentation", tuple(colours)), tuple(colours.values()))


def read_palette(path: Path) -> dict[str, Colour]:
    """Colours by class, from a JSON object {name: "#rrggbb"}. Raises UsageError for anything else, also for a name that
    stands twice."""
    form = 'an object from class names to colours, as {"wall": "#787878"}'
    if not path.is_file():
        raise UsageError(f"there is no palette {path}: give a JSON file with {form}")
    try:
        colours = read_json(path, twice=False)
    except DiffcernError as error:
        raise UsageError(f"the palette {error}: give {form}") from error
    if not isinstance(colours, dict) or not colours:
        raise UsageError(f"the palette {path} must be {form}")
    odd = [f"{name!r}: {value!r}" for name, value in colours.items() if not _is_colour(value)]
    if odd:
        raise UsageError(f"the palette {path} must be {form}, and holds {odd[0]}")
    return {name: tuple(byte / 255 for byte in bytes.fromhex(value[1:])) for name, value in colours.items()}


def _is_colour(value: object) -> bool:
    return isinstance(value, str) and COLOUR.fullmatch(value) is not None
