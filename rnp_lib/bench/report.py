"""What the benchmark measured, as text for people."""


def ratios(result: dict) -> dict[str, float]:
    """Training throughput of one row over another's, named with the types of their products.

    Against the naive port, which is in float32: like for like, and as `rnp train` takes each model.
    A step with the posterior of the whole tree takes factorised / tree times as long as with that
    of the root alone.
    """
    train, types = result["train_images_per_s"], result["precision"]
    rows = ["full_float32", "full", "factorised_float32", "factorised"]
    pairs = [
        *((row, "naive_full") for row in rows),
        ("factorised_float32", "tree_float32"),
        ("factorised", "tree"),
        ("factorised", "vae"),
    ]
    return {f"{a} ({types[a]}) / {b} ({types[b]})": train[a] / train[b] for a, b in pairs}


def report(result: dict) -> str:
    """The whole record of a benchmark as tables."""
    machine, most = result["machine"], result["limits"]
    shares = result.get("time_shares", {})
    tables = {
        "MFLOP of a forward pass; 'of limit' is the share of the float32 matrix-product rate that\n"
        "training reaches, at three times as many; MB is the most memory a training step needs.": (
            _rows(result)
        ),
        "training, images per second": [
            [name, f"{ratio:.2f}"] for name, ratio in ratios(result).items()
        ],
        "milliseconds of a training step of the factorised model": [
            [name, f"{milliseconds:.1f}"] for name, milliseconds in result["growth_ms"].items()
        ],
        "share of a training step's time": [
            *([["", *kinds]] if (kinds := next(iter(shares.values()), None)) else []),
            *([name, *(f"{x:.0%}" for x in row.values())] for name, row in shares.items()),
        ],
        "images per second of `rnp train mnist`, processes x threads": [
            [name, f"{v:.0f}"] for name, v in result.get("processes_images_per_s", {}).items()
        ],
        "training until the validation SSE on MNIST is down to": [
            [model, goal, f"{reached['minutes']:.1f} minutes", f"{reached['images']:,} images"]
            for model, goals in result.get("learn", {}).items()
            for goal, reached in goals.items()
        ],
    }
    head = (
        f"{machine['chip']} ({machine['device']}), {machine['threads']} threads, batch "
        f"{result['batch']}; matrix product {most['matmul_gflops']:.0f} GFLOP/s (bfloat16 "
        f"{most['matmul_bfloat16_gflops']:.0f}), memory copy {most['copy_gb_s']:.0f} GB/s"
    )
    texts = [f"{title}\n{_columns(lines)}" for title, lines in tables.items() if lines]
    return "\n\n".join([head, *texts])


def _rows(result: dict) -> list[list[str]]:
    head = ["", "", "train/s", "(quartiles)", "parse/s", "MFLOP/image", "of limit", "MB"]
    lines = [
        [
            name,
            result["precision"][name],
            f"{spread['median']:.0f}",
            f"({spread['low']:.0f}-{spread['high']:.0f})",
            f"{result['parse_images_per_s'][name]:.0f}",
            f"{result['flops_per_image'][name] / 1e6:.1f}",
            f"{result['train_share_of_matmul'][name]:.0%}",
            f"{result['peak_memory_mb'][name]:.0f}",
        ]
        for name, spread in result["train_spread"].items()
    ]
    return [head, *lines]


def _columns(lines: list[list[str]]) -> str:
    """Lines of cells, each column as wide as it must be; but for the first, from the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        [f"{cell:{'>' if i else '<'}{widths[i]}}" for i, cell in enumerate(line)] for line in lines
    ]
    return "\n".join("  ".join(line) for line in aligned)
