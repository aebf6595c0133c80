"""Many images through a function of few."""

from collections.abc import Callable

import torch
from torch import Tensor

SIZE = 500  # images at a time: fits the memory of small machines, and fills the big ones' cores


@torch.no_grad()
def batched(
    function: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
    items: Tensor,
    device: torch.device | str | None = None,
    size: int = SIZE,
) -> Tensor | tuple[Tensor, ...]:
    """`function` of items (N, ...), `size` at a time: its tensors (n, ...) put together, (N, ...).

    Args:
        device: where the function wants its items, and what it returns then comes back to the CPU;
            unless told, both stay where they are.

    Gradients are not kept.
    """

    def run(piece: Tensor) -> tuple[Tensor, ...]:
        found = function(piece if device is None else piece.to(device))
        many = found if isinstance(found, tuple) else (found,)
        return many if device is None else tuple(tensor.cpu() for tensor in many)

    columns = zip(*(run(piece) for piece in items.split(size)), strict=True)
    whole = tuple(torch.cat(column) for column in columns)
    return whole if len(whole) > 1 else whole[0]
