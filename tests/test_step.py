"""The training step touches only tensors that stay in place: a GPU can record and replay it."""

import contextlib

import pytest
import torch
from tiny import config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from rnp_lib.presets import PRESETS
from rnp_lib.training import step as step_module
from rnp_lib.training.trainer import Trainer

CPU = torch.device("cpu")


class Recording(TorchDispatchMode):
    """What a CUDA graph does, on a CPU: operations run again on the memory they were recorded on.

    A graph does not run what it records; here it runs, and is undone at the end.
    """

    def __init__(self):
        super().__init__()
        self.operations, self.made, self.before = [], set(), {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a number was read back to Python, where a graph would have to stop")
        leaves, structure = tree_flatten((args, kwargs or {}))
        for tensor in leaves:
            if isinstance(tensor, torch.Tensor) and tensor.data_ptr() not in self.made:
                self.before.setdefault(
                    tensor.data_ptr(), (tensor.detach(), tensor.detach().clone())
                )
        results = tree_flatten(result := function(*args, **(kwargs or {})))[0]
        given = {tensor.data_ptr() for tensor, _ in self.before.values()}
        self.made |= {t.data_ptr() for t in results if isinstance(t, torch.Tensor)} - given
        self.operations.append((function, leaves, structure, results))
        return result

    @torch.no_grad()
    def __exit__(self, *error):
        super().__exit__(*error)
        for tensor, before in self.before.values():
            tensor.copy_(before)

    @torch.no_grad()
    def replay(self):
        for function, leaves, structure, results in self.operations:
            args, kwargs = tree_unflatten(leaves, structure)
            again = tree_flatten(function(*args, **kwargs))[0]
            for kept, new in zip(results, again, strict=True):
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr():
                    kept.detach().copy_(new)


@pytest.fixture
def graphs_on_a_cpu(monkeypatch):
    """Stand-ins for torch.cuda, and the graphs that were recorded."""
    made = []

    def graph():
        made.append(Recording())
        return made[-1]

    class Stream:
        def wait_stream(self, other):
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return made


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bfloat16"},
        {"hypernet": "full", "feedback": "child", "optimiser": "adam", "part_term": "zoom"},
        {"encoder": "resnet", "kl_warmup": 80},
        {"model": "vae"},
        {"model": "vae", "samples": 3},
        {"model": "hvae", "drop": 0.4, "posterior": "tree"},
        {"hypernets": "levels", "dabs": 40},
        {"dabs": 40},
        {"posterior": "tree", "prior_z": "both", "symbols": 3, "drop": 0.4},
    ],
    ids=[
        "recipe",
        "bfloat16",
        "paper",
        "batch norm, KL warm-up",
        "vae",
        "iwae",
        "hvae",
        "levels",
        "dabs",
        "tree",
    ],
)
def test_replaying_a_step_trains_as_running_it(graphs_on_a_cpu, tmp_path, changes):
    c = config(images=(64, 64), warmup=4, **{"precision": "float32"} | changes)
    images = torch.rand(40, 1, 16, 16)
    plain, replayed = (Trainer(c, images, images[:4], tmp_path, CPU) for _ in range(2))
    replayed.update.replay = True
    for _ in range(plain.total):
        expected, found = plain.train_step(), replayed.train_step()
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert len(graphs_on_a_cpu) == 2  # one for each depth
    for a, b in zip(plain.model.parameters(), replayed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    expected = plain.average.module.state_dict()
    torch.testing.assert_close(replayed.average.module.state_dict(), expected, rtol=0, atol=0)


def test_reading_a_number_back_is_noticed():
    with pytest.raises(RuntimeError, match="read back"), Recording():
        torch.ones(()).item()


def test_bfloat16_is_used_where_the_machine_has_it(monkeypatch):
    preset = PRESETS["mnist"]
    for able, dtype in (({"avx512_bf16": True}, torch.bfloat16), ({}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able, raising=False)
        assert step_module.precision(preset, CPU) == dtype
    for name in ("float32", "bfloat16"):
        chosen = preset.override([f"precision={name}"])
        assert step_module.precision(chosen, CPU) == getattr(torch, name)
