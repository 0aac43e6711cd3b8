#!/usr/bin/env bash
# DPM-Solver, UniPC and DEIS of diffusers add noise backwards in time until set_timesteps has been called.
#
# add_noise is what training, scoring and editing begin with, at any of the 1,000 times that a network was trained with. By DDPM,
# DDIM and SA-Solver the image is whole at t = 0 and gone at t = 999. By DPM-Solver (both), UniPC and DEIS it is the other way
# round while they are new: they hold noise levels from low to high, and look t up among times from high to low. One for flows
# (shift 3, as Sana's) multiplies the image by -156 at t = 0. After set_timesteps(1000) they are right, from t = 1 on. After
# set_timesteps(20) a time that is none of the 20 gets the last one's noise, which is next to none: 98 % of the image is left at
# t = 990. Nothing warns, and published pipelines often hold one of them. diffusers 0.42.1.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.14.1" "diffusers==0.42.1" "transformers==5.24.0"
python -W ignore - <<'PYTHON'
import diffusers
import torch

print("diffusers", diffusers.__version__, "torch", torch.__version__)
diffusers.utils.logging.set_verbosity_error()  # DPMSolverSinglestep speaks of its last step


def kept(scheduler, *times):
    """How much of the image add_noise leaves at these times."""
    noised = scheduler.add_noise(torch.ones(len(times), 1), torch.zeros(len(times), 1), torch.tensor(times))
    return [round(each, 4) for each in noised.flatten().tolist()]


right = kept(diffusers.DDPMScheduler(), 0, 500, 999)
print(f"{'DDPMScheduler':30} image left at t = 0, 500, 999: {right}")
for name in ("DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep", "SASolver", "DDIM"):
    scheduler = getattr(diffusers, f"{name}Scheduler")()
    new = kept(scheduler, 0, 500, 999)
    scheduler.set_timesteps(1000)
    after = kept(scheduler, 1, 500, 999)
    scheduler.set_timesteps(20)
    few = kept(scheduler, 501, 700, 990)
    print(f"{name + 'Scheduler':30} when new: {new}, after set_timesteps(1000), from t = 1 on: {after}")
    print(f"{'':30} after set_timesteps(20), at 501, 700 and 990, which are none of them: {few}")
    assert max(abs(a - b) for a, b in zip(after, right)) < 2e-3, "the finding no longer holds"
    if name in ("SASolver", "DDIM"):
        assert new == right and few[0] < right[1], "the finding no longer holds"
    else:
        assert abs(new[0] - right[2]) < 1e-3 and abs(new[2] - right[0]) < 1e-3, "the finding no longer holds"
        assert min(few) > 0.98, "the finding no longer holds"
flow = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
new = kept(flow, 0, 500, 999)
flow.set_timesteps(1000)
after = kept(flow, 2, 999)
print(f"DPMSolverMultistep for flows with shift 3, when new: {new}, after set_timesteps(1000), at 2 and 999: {after}")
assert new[0] < -100 and new[2] > 0.9 and after[0] > 0.9 and after[1] < 0.1, "the finding no longer holds"
print("still so")
PYTHON
