"""What a trained model is judged by, always on images it was not trained on."""

import torch
from torch import Tensor

from rnp_lib.model.objective import constant, kl_to_prior, squared_error
from rnp_lib.model.rnp import RNP
from rnp_lib.model.tree import ProgramTree


def ink_share(tree: ProgramTree) -> Tensor:
    """Each child's share of a program's drawn ink, (B, tau); rows sum to 1, or 0 if blank."""
    ink = tree.parts.flatten(2).sum(2)
    return ink / ink.sum(1, keepdim=True).clamp_min(1e-6)


@torch.no_grad()
def evaluate(model: RNP, images: Tensor) -> dict[str, float]:
    """Score a model on held-out images (N, 1, H, W).

    Returns:
        n: images; sse: squared error summed over the pixels of an image, mean over images, of the
        canvas composed from the leaves at the posterior mean; sse_stderr: its standard error;
        mse: per pixel; sse_parts: of the canvas of directly decoded parts; sse_blank: of an empty
        canvas; kl and elbo: nats, the ELBO at the posterior mean with its constant;
        ink_part_1..τ: each part's share of the drawn ink, mean over images.

    Raises ValueError for a plain VAE, which has no parts.
    """
    if model.config.model == "vae":
        raise ValueError("a plain VAE has no parts to score: its metadata holds its error.")
    rows, shares = [], []
    for x in images.split(500):
        q = model.encode(x)
        tree = model.decode(q.mean)
        sse, parts = squared_error(tree.canvas, x), squared_error(tree.cut(tree.level - 1), x)
        rows.append(torch.stack([sse, parts, squared_error(0 * x, x), kl_to_prior(q)], 1))
        shares.append(ink_share(tree))
    rows, shares = torch.cat(rows).double(), torch.cat(shares).double()
    sse, parts, blank, kl = rows.mean(0).tolist()
    pixels, sigma2 = images[0].numel(), model.config.sigma2
    scores = {
        "n": len(images),
        "sse": sse,
        "sse_stderr": float(rows[:, 0].std() / len(rows) ** 0.5),
        "mse": sse / pixels,
        "sse_parts": parts,
        "sse_blank": blank,
        "kl": kl,
        "elbo": -(sse / (2 * sigma2) + constant(pixels, sigma2) + kl),
    }
    return scores | {f"ink_part_{t + 1}": s for t, s in enumerate(shares.mean(0).tolist())}
