"""Variations of one character: what a tree keeps, and what is drawn anew or comes from another."""

import torch

from rnp_lib.model.guide import Given, Guide
from rnp_lib.model.rnp import RNP
from rnp_lib.model.tree import ProgramTree

KINDS = {
    "parts": "root kept, parts and places drawn anew",
    "places": "parts kept, places drawn anew",
    "transplanted": "places kept, parts of others",
}


@torch.no_grad()
def vary(model: RNP, tree: ProgramTree, kind: str, seed: int = 0) -> ProgramTree:
    """A variation of each of B characters.

    Args:
        tree: of a model whose programs are all random, B of them.
        kind: one of KINDS. Parts and places are drawn from their prior; others' parts are those
            that the next tree of the batch has in the same turn, and the last borrows of the first.

    Raises ValueError for a kind there is not.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}: got {kind!r}.")
    depth, below = model.config.depth, model.split(model.noise(len(tree), seed))[1]
    levels = [list(tree.programs(level)) for level in range(depth - 1, 0, -1)]
    z, u = ([torch.stack([getattr(p, n) for p in of], 1) for of in levels] for n in "zu")
    if kind == "parts":
        guide = Guide(below)
    elif kind == "places":
        guide = Given([(values, None) for values in z], below)
    else:
        # With a part, all below it is borrowed; the place of the part itself is not.
        lent = [values.roll(-1, 0) for values in z]
        places = [u[0], *(values.roll(-1, 0) for values in u[1:])]
        guide = Given(list(zip(lent, places, strict=True)))
    return model.unroll(tree.z, depth, guide=guide)
