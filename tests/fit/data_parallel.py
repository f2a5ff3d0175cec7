"""A process of test_parallel.py, started by torchrun or alone: `data_parallel.py FOLDER` trains routers and writes them.

The processes deal out the images that a single one would draw, so that any number of them computes the same."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow"))

from cachebench.engine import seeds
from cachebench.engine.backbones import checkpoints
from cachebench.engine.spec import Arch, Spec
from cachebench.files import atomic
from cachebench.fit import loop, parallel, router
from cachebench.plugin.problem import Problem

torch.set_num_threads(1)
folder, rank = Path(sys.argv[1]), parallel.join("cpu")
processes, draw = parallel.place()[1], router.batch
arch = Arch("dit", input_size=4, patch_size=2, channels=2, width=32, depth=2, heads=2, num_classes=3)
torch.manual_seed(0)
model = checkpoints.build(arch).eval().requires_grad_(False)
for p in model.parameters():
    p.normal_(std=0.2)
problem = Problem(model, Spec(arch, "ddim", num_steps=8), torch.randn(12, 2, 4, 4), torch.arange(12) % 3, folder / "partial")


def dealt(problem, size, dropout, g):
    return [part[rank::processes] for part in draw(problem, size * processes, dropout, g)]


router.batch, router.generator = dealt, lambda *key: seeds.generator(*key[:3])  # without the rank
router.optimise = partial(loop.optimise, save_every=4)
state, _ = router.train_routers(problem, 1e-3, 10, lr=0.05, batch_size=8)
# Along trajectories each process has the same ones, since its rank is left out: as many computes what one does.
way = router.Way("trajectories", objective="cumulative", refresh=16)
along = replace(problem, checkpoint=folder / f"along-{processes}")
state["along"] = router.train_routers(along, 1e-6, 6, lr=0.05, batch_size=2 * processes, pairing="all", way=way)[0]["routers"]
atomic.write_tensors(folder / f"{processes}-{rank}.safetensors", state)
