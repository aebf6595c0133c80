"""The rules: what each child of a program may be, given what the program predicts of it."""

import math

import torch
from torch import Tensor, nn

from rnp_lib.config import Config
from rnp_lib.model.chance import Chance, Mixture, normal

Z_STD, U_STD, SYMBOL_STD = 0.5, 0.2, 0.3  # standard deviations to begin with


class Grammar(nn.Module):
    """The prior of a child, the same rules for all levels.

    Its u lies around what the policy says. Its z lies around the program's next state
    (prior_z "prediction"); or it is one of `symbols` shared by all turns, which the next state
    chooses and the parent shifts ("symbols"); or either ("both").
    """

    def __init__(self, config: Config):
        super().__init__()
        n, kind, m = config.z_dim, config.prior_z, config.symbols
        self.predicts, self.n = kind != "symbols", n
        self.spread = nn.Linear(n, self.predicts * n + 6)
        nn.init.zeros_(self.spread.weight)
        nn.init.constant_(self.spread.bias[:-6], math.log(Z_STD))
        nn.init.constant_(self.spread.bias[-6:], math.log(U_STD))
        self.choice = None
        if kind != "prediction":
            self.symbols = nn.Parameter(0.5 * torch.randn(m, n))
            self.log_std = nn.Parameter(torch.full((m, n), math.log(SYMBOL_STD)))
            self.choice = nn.Linear(n, m + self.predicts)
            self.shift = nn.Linear(n, n, bias=False)
            nn.init.zeros_(self.shift.weight)

    def forward(self, parent: Tensor, state: Tensor, u: Tensor) -> Chance:
        """The prior of the next child of programs `parent` (B, |z|).

        Args:
            state: (B, |z|), the program's next state, and u (B, 6), from its policy.
        """
        log_std_z, log_std_u = self.spread(state).tensor_split([-6], -1)
        prior_u = normal(u, log_std_u)
        if self.choice is None:
            return Chance(normal(state, log_std_z), prior_u)
        mean = self.symbols + self.shift(parent).unsqueeze(1)  # (B, M, |z|)
        log_std = self.log_std.expand_as(mean)
        if self.predicts:
            mean = torch.cat([mean, state.unsqueeze(1)], 1)
            log_std = torch.cat([log_std, log_std_z.unsqueeze(1)], 1)
        parts = normal(mean, log_std)
        log_weights = self.choice(state).to(parts.mean.dtype).log_softmax(-1)
        return Chance(Mixture(log_weights, parts.mean, parts.scale, self.predicts), prior_u)
