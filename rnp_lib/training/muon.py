"""Muon as torch has it, with all matrices of one shape at a time."""

from collections import defaultdict

import torch
from torch import Tensor


class Muon(torch.optim.Muon):
    """torch.optim.Muon with updates as large as Adam's and no weight decay.

    torch orthogonalises one matrix after another, in bfloat16 everywhere: where that is emulated,
    as on most CPUs, it took four fifths of a training step.

    Args:
        dtype: of the orthogonalisation's products.
    """

    def __init__(self, params, dtype: torch.dtype, lr: float):
        super().__init__(params, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum_buffer"] for p in params]
            grads = [p.grad for p in params]
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov's

            shapes = defaultdict(list)
            for p, update in zip(params, updates, strict=True):
                # Transposed views, where a matrix is taller than wide: what is added to them
                # arrives in the parameter.
                tall = p.shape[0] > p.shape[1]
                pair = (p.T, update.T) if tall else (p, update)
                shapes[pair[0].shape].append(pair)
            for (_, columns), pairs in shapes.items():
                stack = torch.stack([update for _, update in pairs])
                orthogonal = orthogonalise(stack.to(self.dtype), group)
                for (p, _), update in zip(pairs, orthogonal.unbind(), strict=True):
                    p.add_(update, alpha=-0.2 * group["lr"] * columns**0.5)


def orthogonalise(matrices: Tensor, group: dict) -> Tensor:
    """(N, rows, columns), rows <= columns: each with its singular values brought close to 1.

    Newton and Schulz's iteration; `group` of the optimiser has its coefficients and steps.
    """
    a, b, c = group["ns_coefficients"]
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=group["eps"])
    rows, columns = x.shape[1:]
    # Every step multiplies x from the left. For wide matrices it is less work to multiply these
    # factors first, but the squares in them take more than bfloat16's eight bits.
    if columns > 2 * rows and x.dtype != torch.bfloat16:
        gram, product = x @ x.mT, torch.eye(rows).to(x)
        for _ in range(group["ns_steps"]):
            factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            factor.diagonal(dim1=1, dim2=2).add_(a)
            product, gram = factor @ product, factor @ gram @ factor
        return product @ x
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
