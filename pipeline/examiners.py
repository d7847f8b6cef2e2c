"""From a setup to the tools of one worker: models, decoders, canaries, search.

Owns loading. torch is imported only here, in the process of a device and in what they import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from socket import socket
from typing import TYPE_CHECKING

from classifiers.embedders.folder import read_folder
from classifiers.hashes.registry import find_kind
from classifiers.image.registry import load_net
from classifiers.signals import BatchTooLargeError, Embedder
from classifiers.text.terms import TermMatcher
from classifiers.weights import WeightsError
from pipeline.canary_shard import CanaryShard
from pipeline.decode import DecodeLimits, Decoder
from pipeline.errors import ConfigError
from pipeline.examine import MORE_MEMORY, Examiner
from pipeline.executors.protocol import OnRows, WorkerOptions
from pipeline.hash_pictures import PictureHashes
from pipeline.setup import Setup, search_on
from pipeline.sheet import Models
from pipeline.stages import StageClock

if TYPE_CHECKING:
    from classifiers.embedders.open_clip import OpenClipEmbedder
    from pipeline.device_client import DeviceClient


@contextmanager
def make_examiner(setup: Setup, on_rows: OnRows, options: WorkerOptions | None = None) -> Iterator[Examiner]:
    """Load the models and start the decoders; the decoders end with the block.

    options: of a worker that shares a process for the model; without, the model is loaded here.
    """
    config, plan, clock = setup.config, setup.plan.examine, StageClock()
    device_fd = None if options is None else options.device_fd
    limits = DecodeLimits(
        **asdict(plan.decode),
        trailing_bytes="copy" if config.members.trailing_bytes == "copied" else "quarantine",
    )
    with clock.stage("start"):
        canaries = CanaryShard(setup.decider.lists)
        models = _load_models(setup, device_fd, clock)
    with closing(canaries), Decoder(limits, workers=max(1, config.decode.workers)) as decoder:
        yield Examiner(
            setup.collection,
            setup.plan,
            config.members,
            models,
            decoder,
            # A worker that shares a process for the model has no memory of the device to itself.
            replace(setup.decider, search=search_on(plan.device if device_fd is None else "cpu")),
            canaries,
            on_rows,
            clock,
        )


def _load_models(setup: Setup, device_fd: int | None, clock: StageClock) -> Models:
    config, plan = setup.config, setup.plan.examine
    terms = TermMatcher(setup.terms) if setup.terms else None
    hashes = PictureHashes(tuple(find_kind(name) for name in config.hashes.kinds), config.hashes.views)
    try:
        nets = tuple(load_net(item, threads=plan.threads) for item in config.net)
    except WeightsError as error:
        raise ConfigError(str(error)) from None
    if config.embedder is None:
        return Models(hashes, None, (), nets, terms, plan.batch, config.metadata)
    if device_fd is not None:
        embedder: Embedder = _join_device(setup, device_fd, clock)
    else:
        embedder = load_embedder(setup, threads=plan.threads)
    return Models(hashes, embedder, setup.heads, nets, terms, plan.batch, config.metadata)


def load_embedder(setup: Setup, *, threads: int) -> OpenClipEmbedder:
    """Load the plan's tower into this process, which uses so many threads from now on.

    Raises:
        ConfigError: it cannot be loaded, is not the plan's, or does not fit in memory.
    """
    import torch  # noqa: PLC0415 - half a second and 200 MB that settling does without

    from classifiers.embedders.open_clip import OpenClipEmbedder  # noqa: PLC0415 - as above

    config, plan = setup.config, setup.plan.examine
    assert config.embedder is not None
    torch.set_num_threads(threads)
    try:
        embedder = OpenClipEmbedder(
            config.embedder.folder,
            name=config.embedder.name,
            sha256=config.embedder.sha256,
            device=plan.device,
            precision=plan.precision,
            batch=plan.batch,
            jit=config.embedder.compile,
        )
    except (WeightsError, ValueError) as error:
        raise ConfigError(str(error)) from None
    except BatchTooLargeError as error:
        raise ConfigError(f"embedder {plan.embedder}: {error}; {MORE_MEMORY}") from None
    if embedder.dims != plan.dims or embedder.name != plan.embedder:
        raise ConfigError(f"embedder {embedder.name}: {embedder.dims} wide, its folder says {plan.dims}")
    return embedder


def _join_device(setup: Setup, fd: int, clock: StageClock) -> DeviceClient:
    import torch  # noqa: PLC0415 - as above; views are made here

    from pipeline.device_client import DeviceClient  # noqa: PLC0415 - as above

    config, plan = setup.config.embedder, setup.plan.examine
    assert config is not None
    torch.set_num_threads(plan.threads)
    folder = read_folder(config.folder, name=config.name)
    return DeviceClient(socket(fileno=fd), name=plan.embedder, folder=folder, batch=plan.batch, clock=clock)
