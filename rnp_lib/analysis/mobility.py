"""Do windows move, and can turns lend each other parts?"""

import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from rnp_lib.analysis.programs import of_level
from rnp_lib.model.batched import batched
from rnp_lib.model.objective import squared_error
from rnp_lib.model.rnp import RNP
from rnp_lib.model.transforms import place
from rnp_lib.model.tree import ProgramTree

NEIGHBOURS = 5  # that vote on a part's turn
STEPS, RATE = 100, 0.05  # of Adam, when actions are fitted to other parts


def centres(tree: ProgramTree) -> Tensor:
    """Where the middles of a program's children lie, in pixels to the right of and below its own
    middle: (B, τ, 2)."""
    return torch.stack([child.affine[:, :, 2] for child in tree.children], 1) * (
        (tree.canvas.shape[-1] - 1) / 2
    )


def evaluate_mobility(model: RNP, images: Tensor, known: Tensor) -> dict[str, float]:
    """How freely the parts of the root move, and how far the turns share them.

    Args:
        images: (M, 1, H, W), and `known`, (N, 1, H, W), others from which parts are borrowed; both
            on the model's device.

    Returns:
        n, known: images; sse: as parsed; centre_sd_part_t: standard deviation of the window's
        centre over images, pixels, the larger of x and y; centre_sd_min: the smallest of these;
        sse_fixed_windows: with every window at the mean action of its turn; turn_read: share of
        parts whose turn their NEIGHBOURS nearest known parts tell; sse_same_turn: drawn by the
        nearest known parts of the same turn, actions fitted; sse_other_turn: by the nearest of all
        other turns, actions fitted alike.
    """
    c = model.config
    bank = of_level(model, known, c.depth - 1)  # (N, τ, |z|)
    turns = torch.arange(c.tau[0]).expand(len(known), -1)

    def measure(x: Tensor) -> tuple[Tensor, ...]:
        tree = model.parse(x)
        codes, actions = (
            torch.stack([getattr(part, name) for part in tree.children], 1)
            for name in ("z", "action")
        )
        return codes, actions, centres(tree), squared_error(tree.canvas, x)

    codes, actions, middles, sse = batched(measure, images)
    spread = middles.std(0).amax(-1)
    found = {"n": len(images), "known": len(known), "sse": sse}
    found |= {f"centre_sd_part_{t + 1}": float(sd) for t, sd in enumerate(spread)}
    found |= {"centre_sd_min": float(spread.min())}

    fixed = actions.mean(0).expand_as(actions)
    found["sse_fixed_windows"] = _errors(model, codes, fixed, images)
    for name, same in (("sse_same_turn", True), ("sse_other_turn", False)):
        borrowed = torch.stack([_nearest(bank, codes[:, t], t, same) for t in range(c.tau[0])], 1)
        found[name] = _errors(model, borrowed, actions, images, STEPS)
    reader = KNeighborsClassifier(NEIGHBOURS).fit(bank.flatten(0, 1).cpu(), turns.flatten())
    own = turns[:1].expand(len(images), -1).flatten()
    found["turn_read"] = float(reader.score(codes.flatten(0, 1).cpu(), own))
    return {k: v.double().mean().item() if isinstance(v, Tensor) else v for k, v in found.items()}


def _nearest(bank: Tensor, codes: Tensor, turn: int, same: bool) -> Tensor:
    """The known part (N, τ, |z|) nearest to each code (M, |z|), of its turn or of the others."""
    others = [t for t in range(bank.shape[1]) if (t == turn) == same]
    choice = bank[:, others].flatten(0, 1)
    return choice[batched(lambda z: torch.cdist(z, choice).argmin(1), codes, size=250)]


@torch.enable_grad()
def _fitted(model: RNP, pictures: Tensor, actions: Tensor, x: Tensor, steps: int) -> Tensor:
    """SSE (B,) of images x drawn by pictures (B, τ, 1, P, P), their actions (B, τ, 6) as they are,
    or the best that descent from there meets."""
    u = model.unsquash(actions).requires_grad_()
    optimiser = torch.optim.Adam([u], lr=RATE)
    best = torch.full_like(x[:, 0, 0, 0], torch.inf)
    for step in range(steps + 1):
        drawn = place(pictures, model.window(model.config.depth, u), x.shape[-1]).sum(1)
        error = squared_error(drawn, x)
        best = torch.minimum(best, error.detach())
        if step < steps:
            (u.grad,) = torch.autograd.grad(error.sum(), u)
            optimiser.step()
    return best


def _errors(model: RNP, codes: Tensor, actions: Tensor, images: Tensor, steps: int = 0) -> Tensor:
    """SSE of every image drawn by other parts (M, τ, |z|) with these actions to start from."""

    def error(rows: Tensor) -> Tensor:
        z = codes[rows]
        pictures = model.decode(z.flatten(0, 1), model.config.depth - 1).canvas
        return _fitted(
            model, pictures.unflatten(0, z.shape[:2]), actions[rows], images[rows], steps
        )

    return batched(error, torch.arange(len(images), device=images.device), size=250)
