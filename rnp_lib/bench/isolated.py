"""Measurements of the benchmark that need new processes: memory, profile, several processes."""

import multiprocessing
import os
import resource
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist

from rnp_lib.bench.rows import Row, make, seconds
from rnp_lib.presets import PRESETS
from rnp_lib.training.trainer import Trainer

# What names of operations contain, for `time_shares`; the first that fits counts.
KINDS = {
    "convolutions": ("convolution",),
    "matrix_products": ("mm", "_Use", "CollectUses"),
    "sampling": ("grid_sampler",),
    "update": ("adam", "lerp", "foreach", "zero_grad", "vector_norm"),
}


def peak_memory_mb(name: str, batch: int, device: torch.device) -> float:
    """Most memory that training steps of a row need, weights and all; on a CPU in a new process."""
    if device.type == "cuda":
        return _grown_by_training(name, batch, device)
    with _new_processes(1) as process:
        return process.submit(_grown_by_training, name, batch, device).result()


def _grown_by_training(name: str, batch: int, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = _most_held(device)
    row = Row(make(name), batch, device)
    for _ in range(4):  # on a GPU the fourth is a replay
        row.train_step()
    return (_most_held(device) - before) / 1e6


def _most_held(device: torch.device) -> int:
    """Bytes that this process has held at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss includes what the parent held
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS, in bytes


def time_shares(name: str, batch: int) -> dict[str, float]:
    """Where a training step of a row spends its time on a CPU: shares of each of KINDS and `rest`.

    The rest is elementwise work, copies and the cost of calling many small operations.
    """
    with _new_processes(1) as process:
        times = process.submit(_profiled, name, batch, torch.get_num_threads()).result()
    shares = dict.fromkeys([*KINDS, "rest"], 0.0)
    for operation, spent in times.items():
        fitting = (kind for kind, words in KINDS.items() if any(w in operation for w in words))
        shares[next(fitting, "rest")] += spent / sum(times.values())
    return shares


def _profiled(name: str, batch: int, threads: int) -> dict[str, float]:
    """Time of each operation itself, in a process of its own: the profiler writes to stderr."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(threads)
    row = Row(make(name), batch, torch.device("cpu"))
    for _ in range(3):
        row.train_step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        row.train_step()
    return {event.key: event.self_cpu_time_total for event in profile.key_averages()}


def processes() -> dict[str, float]:
    """Images per second of `rnp train mnist` by processes x threads, on CPU cores."""
    cores = torch.get_num_threads()
    return {
        f"{number}x{threads}": _speed_of_processes(number, threads)
        for number, threads in dict.fromkeys([(1, 1), (1, cores), (cores, 1)])
    }


def _speed_of_processes(number: int, threads: int) -> float:
    with tempfile.TemporaryDirectory() as folder, _new_processes(number) as pool:
        place = f"file://{folder}/meeting"
        shares = [pool.submit(_train_share, r, number, threads, place) for r in range(number)]
        return min(share.result() for share in shares)


def _train_share(rank: int, world: int, threads: int, place: str) -> float:
    torch.set_num_threads(threads)
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=world)
    config = PRESETS["mnist"]
    images = torch.rand(2700, 1, config.image_size, config.image_size)
    trainer = Trainer(config, images, images[:1], Path(), torch.device("cpu"))
    times = [seconds(trainer.train_step, trainer.device) for _ in range(25)]
    dist.destroy_process_group()
    return trainer.config.batch_size / statistics.median(times[5:])


def _new_processes(number: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn"))
