"""Times Blemish's SSIM against its peers and against L2, at equal values, all within one run.

    python benchmarks/similarity.py [--out benchmarks/results/similarity.json] [--seconds 20]

Contenders take turns, so that whatever else the machine does meets all of them; read the ratios, not the
milliseconds. Peers that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blemish.similarity import SSIM, ssim, ssim_map
from blemish.similarity.windows import Window, make_filter

SHAPES = [(32, 3, 128, 128), (8, 3, 256, 256)]
Contender = Callable[[Tensor, Tensor], Tensor]


def peers() -> tuple[dict[str, dict[str, Contender]], list[str]]:
    """Functions of the installed peers (a value for each image, or a map of the inner pixels), and missing peers."""
    found: dict[str, dict[str, Contender]] = {}
    missing: list[str] = []
    try:
        import pytorch_msssim

        found["pytorch-msssim"] = {
            "value": lambda x, y: pytorch_msssim.ssim(x, y, data_range=1.0, size_average=False)
        }
    except ImportError:
        missing.append("pytorch-msssim")
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure as metric

        found["torchmetrics"] = {
            "value": lambda x, y: metric(x, y, data_range=1.0, reduction="none"),
            "map": lambda x, y: metric(x, y, data_range=1.0, return_full_image=True)[1],
        }
    except ImportError:
        missing.append("torchmetrics")
    try:
        import piq

        found["piq"] = {
            "value": lambda x, y: piq.ssim(x, y, data_range=1.0, downsample=False, reduction="none")
        }
    except ImportError:
        missing.append("piq")
    return found, missing


def ours() -> dict[str, Contender]:
    return {
        "value": lambda x, y: ssim(x, y, data_range=1.0, padding="valid"),
        "map": lambda x, y: ssim_map(x, y, data_range=1.0),
    }


def take_turns(contenders: dict[str, Callable[[], object]], seconds: float) -> dict[str, dict[str, float]]:
    """Seconds of a turn of each contender, in turns until the time is up (at least three, after one to warm up).

    `cpu_ms` is the least processor time of a turn, all threads together: what a busy machine disturbs least.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 3:
        for name, call in contenders.items():
            start, worked = time.perf_counter(), time.process_time()
            call()
            times[name].append((time.perf_counter() - start, time.process_time() - worked))
    return {
        name: {
            "min_ms": 1e3 * min(wall for wall, _ in turns),
            "median_ms": 1e3 * statistics.median(wall for wall, _ in turns),
            "cpu_ms": 1e3 * min(worked for _, worked in turns),
            "turns": len(turns),
        }
        for name, turns in times.items()
    }


FIGURES = ("median_ms", "min_ms", "cpu_ms")


def in_words(ratio: dict[str, float]) -> str:
    return ", ".join(f"{ratio[figure]:.2f} by {figure}" for figure in FIGURES)


def forward(contender: Contender, x: Tensor, y: Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return contender(x, y)

    return call


def forward_and_backward(contender: Contender, x: Tensor, y: Tensor) -> Callable[[], object]:
    def call() -> object:
        free = y.detach().requires_grad_()
        contender(x, free).mean().backward()
        return free.grad

    return call


def against_peers(seconds: float) -> dict[str, object]:
    found, missing = peers()
    for name in missing:
        print(f"{name} is not installed; left out (pip install {name})")
    results: dict[str, object] = {"missing": missing}
    everyone = {"blemish": ours(), **found}
    for shape in SHAPES:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(shape, generator=generator)
        y = (x + 0.1 * torch.randn(shape, generator=generator)).clamp(0, 1)
        exact = ssim_map(x.double(), y.double(), data_range=1.0, padding="valid")
        for kind in ("value", "map"):
            able = {name: offers[kind] for name, offers in everyone.items() if kind in offers}
            # a map without a peer's map is measured against the peers' values: they must make the map as well
            able = {**{name: offers["value"] for name, offers in found.items()}, **able}
            error = {}
            for name, contender in able.items():
                result = contender(x, y)
                wanted = exact.mean((1, 2, 3)) if result.ndim == 1 else exact
                if result.ndim == 4:
                    result = result[..., 5:-5, 5:-5]
                error[name] = (result - wanted).abs().max().item()
            for way, make in (("forward", forward), ("forward and backward", forward_and_backward)):
                times = take_turns({name: make(c, x, y) for name, c in able.items()}, seconds)
                ratio: dict[str, float] = {}
                for figure in FIGURES:
                    quickest = min(ms[figure] for name, ms in times.items() if name != "blemish")
                    ratio[figure] = quickest / times["blemish"][figure]
                title = f"{kind}, {way}, {'×'.join(map(str, shape))}"
                results[title] = {
                    "times": times,
                    "largest_error_against_float64": error,
                    "times_quicker_than_the_quickest_peer": ratio,
                }
                print(f"{title}, times quicker than the quickest peer: {in_words(ratio)}", flush=True)
    return results


def autoencoder() -> nn.Sequential:
    """Bergmann et al. 2019, table 1, for 128×128×3 patches and 100 latent values."""
    plan = [(32, 4, 2, 1), (32, 4, 2, 1), (32, 3, 1, 1), (64, 4, 2, 1), (64, 3, 1, 1), (128, 4, 2, 1)]
    plan += [(64, 3, 1, 1), (32, 3, 1, 1), (100, 8, 1, 0)]
    encoder: list[nn.Module] = []
    decoder: list[nn.Module] = []
    channels = 3
    for index, (out, kernel, stride, padding) in enumerate(plan):
        last = index == len(plan) - 1
        encoder += [nn.Conv2d(channels, out, kernel, stride, padding)] + ([] if last else [nn.LeakyReLU(0.2)])
        back: list[nn.Module] = [nn.ConvTranspose2d(out, channels, kernel, stride, padding)]
        decoder = back + ([nn.LeakyReLU(0.2)] if index else []) + decoder
        channels = out
    return nn.Sequential(*encoder, *decoder)


def training(seconds: float) -> dict[str, object]:
    """Training steps on 32 patches of 128×128×3 in bf16, channels_last: L2 against SSIM."""
    torch.manual_seed(0)
    x = torch.rand(32, 3, 128, 128).contiguous(memory_format=torch.channels_last)

    def step(loss: Contender) -> Callable[[], object]:
        network = autoencoder().to(memory_format=torch.channels_last)
        optimiser = torch.optim.Adam(network.parameters(), lr=2e-4)

        def call() -> object:
            optimiser.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                reconstruction = network(x)
            loss(x, reconstruction).backward()
            optimiser.step()
            return None

        return call

    times = take_turns(
        {
            "l2": step(lambda x, y: F.mse_loss(y.float(), x)),
            "ssim": step(SSIM(data_range=1.0)),
            "ssim by five grouped convolutions": step(lambda x, y: 1 - by_grouped_convolutions(x, y.float())),
        },
        seconds,
    )
    rate = {name: 32e3 / ms["median_ms"] for name, ms in times.items()}
    share = {figure: times["l2"][figure] / times["ssim"][figure] for figure in FIGURES}
    print(f"training, SSIM's patches/s as a share of L2's: {in_words(share)}", flush=True)
    return {"times": times, "patches_per_second": rate, "ssim_share_of_l2": share}


def filters_tried(seconds: float) -> dict[str, dict[str, float]]:
    """Ways to take the mean under an 11×11 Gaussian window of 24 planes of 128×128."""
    window = Window(padding="valid")
    line = window.taps().float()
    planes = torch.rand(128, 24, 128)  # (H, planes, W), the layout that the products want
    stacked = planes.transpose(0, 1).contiguous()  # (planes, H, W), what convolutions want

    def by_tiles(tile: int) -> Callable[[], Tensor]:
        window_filter = make_filter(window, torch.Size((128, 128)), torch.float32, planes.device, tile=tile)
        return lambda: window_filter(planes).transpose(0, 1)

    def by_slices() -> Tensor:
        tall = sum((stacked[:, i : i + 118] * line[i] for i in range(1, 11)), stacked[:, :118] * line[0])
        return sum((tall[..., i : i + 118] * line[i] for i in range(1, 11)), tall[..., :118] * line[0])

    square = (line[:, None] * line).expand(24, 1, 11, 11)
    depth = line.view(1, 1, 11, 1).expand(24 * 128, 1, 11, 1).contiguous()

    def by_depthwise_rows() -> Tensor:
        # every column a channel: only the first axis can be had so, the second is a product
        tall = F.conv2d(planes.view(1, 128, 1, -1).permute(0, 3, 1, 2), depth, groups=24 * 128)
        wide = tall.permute(0, 2, 3, 1).reshape(118, 24, 128)
        return torch.stack([wide[..., i : i + 118] * line[i] for i in range(11)]).sum(0).transpose(0, 1)

    contenders: dict[str, Callable[[], Tensor]] = {
        **{f"banded products, tiles of {tile}": by_tiles(tile) for tile in (8, 16, 32, 64, 128)},
        "grouped 11×11 convolution": lambda: F.conv2d(stacked[None], square, groups=24)[0],
        "two one-channel convolutions": lambda: F.conv2d(
            F.conv2d(stacked[:, None], line.view(1, 1, 11, 1)), line.view(1, 1, 1, 11)
        )[:, 0],
        "two sums of shifted slices": by_slices,
        "depthwise convolution of columns, then shifted slices": by_depthwise_rows,
    }
    expected = contenders["banded products, tiles of 16"]()
    for name, call in contenders.items():
        torch.testing.assert_close(
            call(), expected, atol=1e-5, rtol=0, msg=lambda words, name=name: f"{name}: {words}"
        )
    times = take_turns(contenders, seconds)
    for name, ms in times.items():
        print(f"window mean by {name}: {ms['cpu_ms']:.2f} ms")
    return times


def by_grouped_convolutions(x: Tensor, y: Tensor) -> Tensor:
    """The usual form, for comparison: five 11×11 windows as grouped convolutions, differentiated by autograd."""
    channels = x.shape[1]
    line = torch.exp(-0.5 * ((torch.arange(11) - 5) / 1.5) ** 2)
    kernel = (line[:, None] * line / line.sum() ** 2).expand(channels, 1, 11, 11)
    mu_x, mu_y, xx, yy, xy = (
        F.conv2d(field, kernel, groups=channels) for field in (x, y, x * x, y * y, x * y)
    )
    luminance = (2 * mu_x * mu_y + 1e-4) / (mu_x**2 + mu_y**2 + 1e-4)
    similar = (2 * (xy - mu_x * mu_y) + 9e-4) / (xx - mu_x**2 + yy - mu_y**2 + 9e-4)
    return (luminance * similar).mean()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="where to write the figures, as JSON")
    parser.add_argument("--seconds", type=float, default=6, help="time for each comparison")
    arguments = parser.parse_args()
    results = {
        "command": shlex.join(["python", *sys.argv]),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "processor": platform.processor() or platform.machine(),
        "load_before": os.getloadavg()[0],
        "window_mean": filters_tried(arguments.seconds),
        "training": training(arguments.seconds),
        "against_peers": against_peers(arguments.seconds),
    }
    if arguments.out:
        partial = arguments.out.with_suffix(".partial")
        partial.write_text(json.dumps(results, indent=2) + "\n")
        os.replace(partial, arguments.out)


if __name__ == "__main__":
    main()
