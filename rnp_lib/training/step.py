"""One training step as a function of tensors that stay in place, so that a GPU can replay it.

The model is small: launched one by one, its kernels would leave a GPU idle most of the time.
"""

import torch
from torch import Tensor, nn

from rnp_lib.config import Config

CLIP = 1.0  # largest norm of the gradient: every step in the committed models' curves exceeds it


def precision(config: Config, device: torch.device) -> torch.dtype:
    """The type of matrix products in training: bfloat16 where the device has it, if left to it."""
    if config.precision != "auto":
        return getattr(torch, config.precision)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # before torch 2.10 nobody says what a CPU can do
        able = getattr(torch.cpu, "get_capabilities", dict)()
        fast = device.type == "cpu" and (able.get("avx512_bf16") or able.get("amx_bf16"))
    return torch.bfloat16 if fast else torch.float32


class Step:
    """Forward, backward and update of one batch.

    Attributes:
        x, noise, seen: the batch as `Batches` has it, to be filled before a call.
        kl_weight, rate: () each, the same; `rate` multiplies the optimisers' learning rates.
    """

    def __init__(
        self,
        objective: nn.Module,
        optimisers: list[torch.optim.Optimizer],
        config: Config,
        x: Tensor,
        dtype: torch.dtype,
        replay: bool,
    ):
        """
        Args:
            objective: (x, noise, seen, until, kl_weight) -> (loss, values to report).
            x: a batch, for its shape, type and device.
            dtype: of matrix products; the rest is float32.
            replay: whether to record the step as a CUDA graph, once for each level it is cut at.
        """
        self.objective, self.optimisers = objective, optimisers
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        self.before = [torch.empty_like(p) for p in self.parameters]
        self.x = torch.empty_like(x)
        self.noise = torch.empty(len(x), config.samples * config.noise, device=x.device)
        self.seen = torch.ones(len(x), device=x.device)
        self.kl_weight, self.rate = torch.ones((2,), device=x.device).unbind()
        self.dtype, self.replay = dtype, replay
        self.until, self.calls, self.graph = None, 0, None

    def __call__(self, until: int) -> Tensor:
        """Train on the batch with the tree cut at a level: values reported, gradient norm."""
        if until != self.until:
            self.until, self.calls, self.graph = until, 0, None
        self.calls += 1
        if not self.replay:
            return self._work()
        if self.calls <= 3:  # libraries and optimisers set up here what must not be recorded
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                values = self._work()
            torch.cuda.current_stream().wait_stream(side)
            return values.clone()
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.recorded = self._work()
        self.graph.replay()
        return self.recorded.clone()  # the next replay overwrites it

    def _work(self) -> Tensor:
        with torch.autocast(self.x.device.type, self.dtype, self.dtype != torch.float32):
            loss, values = self.objective(self.x, self.noise, self.seen, self.until, self.kl_weight)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, CLIP)
        # The optimisers' step, of which `rate` is taken: their own rates would be recorded.
        with torch.no_grad():
            torch._foreach_copy_(self.before, self.parameters)
            for optimiser in self.optimisers:
                optimiser.step()
            for before, parameter in zip(self.before, self.parameters, strict=True):
                torch.lerp(before, parameter, self.rate.to(before), out=parameter)
        return torch.cat([values, norm.detach().reshape(1)])
