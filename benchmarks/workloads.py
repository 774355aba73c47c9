"""What the benchmarks compute: tasks of given shapes, meta-steps on them, and the dense floor.

A task is one meta-step's work: 5 support samples, 50 queries, exact second-order meta-gradient,
float32. `small` and `reference` are shapes with fitted start weights, on Poisson counts at the
density of real 1 ms N-MNIST bins or on real frames; `task_of_run` takes network, weights and frames
from a trained run. Nothing here measures.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.learn.meta_gradient import MetaGradient, meta_gradient
from spikeshot.learn.rules.presets import get_rule
from spikeshot.learn.rules.rule import Batch, Rule
from spikeshot.snn.init import init_params
from spikeshot.snn.layer import Layer, LayerStyle
from spikeshot.snn.network import Network, prepare
from spikeshot.snn.network_forward import NetworkForward
from spikeshot.snn.neuron import Neuron

WAYS, QUERIES, DENSITY = 5, 10, 0.03


@dataclass(frozen=True)
class Workload:
    """Time steps, burn-in, input size (C, H, W) and channels of 5x5 convolutions, pooled by 2."""

    name: str
    steps: int
    burn_in: int
    shape: tuple[int, int, int]
    channels: tuple[int, ...]


WORKLOADS = {
    "small": Workload("small", 30, 0, (2, 16, 16), (16, 32, 32)),
    "reference": Workload("reference", 100, 70, (2, 32, 16), (32, 64, 128)),
}
PAPER = Neuron(0.95, 0.9, 0.65)


@dataclass(frozen=True)
class Task:
    """All that a meta-step starts from; the batches hold raw frames `[T, B, C, H, W]`."""

    network: Network
    init: dict[str, Tensor]
    learned: dict[str, Tensor]
    rule: Rule
    support: Batch
    query: Batch


def task_of_workload(
    workload: Workload,
    data: Path | None = None,
    neuron: Neuron = PAPER,
    dtype: torch.dtype = torch.float32,
) -> Task:
    """Return the task of a shape, on random frames or on those of the recordings `data`."""
    generator = torch.Generator().manual_seed(0)
    layers = tuple(Layer(channels, 5, 2) for channels in workload.channels)
    network = Network(
        workload.shape, layers, LayerStyle(neuron), burn_in=workload.burn_in, input_gain=10.0
    )
    samples = WAYS * (1 + QUERIES)
    if data:
        frames = real_frames(workload, data)
    else:
        rate = torch.full((workload.steps, samples, *workload.shape), DENSITY)
        frames = torch.poisson(rate, generator=generator)
    frames = frames.to(dtype)
    few = frames[:, : 2 * WAYS]  # so that the start is not what needs the most memory
    init = init_params(network, WAYS, few, generator=generator)
    rule = get_rule("sgd", 1.0, "fixed")
    labels = torch.arange(WAYS)
    support = Batch(frames[:, :WAYS], labels)
    query = Batch(frames[:, WAYS:], labels.repeat_interleave(QUERIES))
    return Task(network, init, rule.learned(init), rule, support, query)


def real_frames(workload: Workload, data: Path) -> Tensor:
    """Return real Double N-MNIST frames `[T, 55, 2, H, W]`, cut to the workload's shape."""
    from spikeshot.data.frames import FrameSpec, bin_recordings
    from spikeshot.data.nmnist import read_nmnist

    _, height, width = workload.shape
    spec = FrameSpec(crop=(1, 1, 32, 32), downsample=2, dt_us=1000, bins=workload.steps)
    samples = WAYS * (1 + QUERIES)
    frames = torch.as_tensor(bin_recordings(read_nmnist(data), range(2 * samples), spec)).float()
    pairs = torch.cat([frames[:, :samples], frames[:, samples:]], dim=-2)  # one above the other
    return pairs[..., :height, :width].contiguous()


def task_of_run(folder: Path, data: Path | None = None) -> Task:
    """Return the task of a trained run: its best weights on a meta-validation episode."""
    from spikeshot.assemble import build_learner
    from spikeshot.assemble_data import load_recordings, task_space
    from spikeshot.assemble_network import build_network
    from spikeshot.run_folder import BEST, RunFolder

    run = RunFolder.open(folder)
    config, record = run.config(), run.data()
    path = data or (Path(record.path) if record.path else None)
    space = task_space(config, load_recordings(config, record.corpus, path), record.split, "val")
    network = build_network(config, space.frame_shape)
    tensors, _ = run.read_tensors(BEST, config)
    init, learned = (
        {k.removeprefix(group): v for k, v in tensors.items() if k.startswith(group)}
        for group in ("init/", "learned/")
    )
    episode = space.episode(0)
    support = Batch(episode.support, episode.support_labels)
    query = Batch(episode.query, episode.query_labels)
    rule = build_learner(config, network).rule
    return Task(network, init, learned, rule, support, query)


def engine_step(
    task: Task, engine: str, strategy: str, inner_steps: int
) -> Callable[[], MetaGradient]:
    """Return the meta-step of `engine` (`auto` or `oracle`); frames are prepared within it.

    `strategy` is the meta-gradient's, or `first_order`. Queries go at once, as the presets of small
    networks have it; with a burn-in (`reference`) in micro-batches of 5, but for
    `double_backward`, which has one graph.
    """
    network = replace(task.network, engine=engine)
    first_order = strategy == "first_order"

    def step() -> MetaGradient:
        support = Batch(prepare(network, task.support.frames), task.support.labels)
        return meta_gradient(
            NetworkForward(network),
            F.cross_entropy,
            task.init,
            task.learned,
            task.rule,
            support,
            task.query,
            inner_steps,
            "first_order" if first_order else "exact",
            strategy="split" if first_order else strategy,
            micro_batch=5 if network.burn_in else 0,
            prepare=partial(prepare, network),
        )

    return step


def floor_step(task: Task, inner_steps: int) -> Callable[[], None]:
    """Return a function that does the dense convolutions of one exact meta-step, nothing else.

    Per layer, over all time steps at once and without pooling: the inner gradients' forward,
    backward and double backward, the query's forward and backward, and the forward of the burn-ins.
    """
    steps, burn_in = len(task.support.frames), task.network.burn_in
    shots, queries = len(task.support.labels), len(task.query.labels)
    channels, height, width = task.network.input_shape

    def images(count: int, wanted: bool) -> Tensor:
        x = torch.randn(count, channels, height, width)
        return x.contiguous(memory_format=torch.channels_last).requires_grad_(wanted)

    plan = []
    for i, layer in enumerate(layer for layer in task.network.layers if layer.kernel):
        kernel = torch.randn(layer.units, channels, layer.kernel, layer.kernel, requires_grad=True)
        window = [images((steps - burn_in) * samples, i > 0) for samples in (shots, queries)]
        before = [images(burn_in * samples, False) for samples in (shots, queries) if burn_in]
        plan.append((kernel, *window, before))
        channels, height, width = layer.units, height // layer.pool, width // layer.pool

    def step() -> None:
        for kernel, support, query, before in plan:
            with torch.no_grad():
                for x, times in zip(before, (inner_steps, 1), strict=False):
                    for _ in range(times):
                        F.conv2d(x, kernel, padding="same")
            for _ in range(inner_steps):
                _convolve(kernel, support, twice=True)
            _convolve(kernel, query, twice=False)

    return step


def _convolve(kernel: Tensor, x: Tensor, *, twice: bool) -> None:
    """Do a convolution, its backward pass and, with `twice`, its double backward pass."""
    inner = x.requires_grad
    wanted = [kernel, x] if inner else [kernel]
    y = F.conv2d(x, kernel, padding="same")
    g = torch.ones_like(y, requires_grad=twice and inner)
    first = torch.autograd.grad(y, wanted, g, create_graph=twice and inner, retain_graph=twice)
    if twice and inner:
        ones = [torch.ones_like(f) for f in first]
        torch.autograd.grad([*first, y], [*wanted, g], [*ones, torch.ones_like(y)])
    elif twice:  # by hand: torch would do the input's gradient too, which nobody asked for
        with torch.no_grad():
            F.conv2d(x, torch.ones_like(kernel), padding="same")
        torch.autograd.grad(y, kernel, g)
