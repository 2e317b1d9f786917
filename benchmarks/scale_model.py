"""Time of a training step on many devices, predicted from its parts.

The parts are numbers: seconds of forward and backward pass on one device, bytes of every message, and latency
and bandwidth of the links. Nothing is measured here, and nothing imported that could: `scale.py` measures the
parts and checks the prediction, `docs/make_scale_table.py` writes the tables of docs/scale.md.

Formulas, for p devices that hand a message of S bytes round a ring whose slowest link carries B bytes a
second to each of them, each message being on its way for a latency L:

    all-reduce      2 (p - 1) L + 2 (p - 1)/p S / B
    all-gather        (p - 1) L +   (p - 1)/p S / B        S: of the whole that each ends with
    reduce-scatter    (p - 1) L +   (p - 1)/p S / B

On several nodes trees bring the first term down to about 2 log2(p) L; the less of both counts. Gradients go
in buckets, each as soon as the backward pass has made it, one bucket at a time: what is still on its way
when the backward pass ends is what a step waits for. Synchronised BatchNorm and collectives of the loss are
waited for where they stand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

BUCKET = 25 * 2**20  # bytes of gradients that go at once: PyTorch's default
FIRST_BUCKET = 2**20  # of the first one


@dataclass(frozen=True)
class Links:
    """What connects the devices.

    Attributes:
        latency: seconds of a message within a node.
        bandwidth: bytes a second that a device sends within its node.
        node_latency: seconds of a message between nodes.
        node_bandwidth: bytes a second that all devices of a node send to another one together.
        per_node: devices of a node.
    """

    latency: float
    bandwidth: float
    node_latency: float = 0.0
    node_bandwidth: float = math.inf
    per_node: int = 1 << 30

    def one_message(self, devices: int) -> float:
        """Seconds of the slowest message among so many devices."""
        return self.latency if devices <= self.per_node else max(self.latency, self.node_latency)

    def rate(self, devices: int) -> float:
        """Bytes a second of each device on the slowest link of a ring, all rings of a node together."""
        return self.bandwidth if devices <= self.per_node else min(self.bandwidth, self.node_bandwidth)

    def all_reduce(self, size: float, devices: int) -> float:
        """Seconds until all have the sum of a message.

        Example:
            >>> Links(latency=0.0, bandwidth=1e9).all_reduce(1e9, devices=4)
            1.5
        """
        return 2 * self._half(size, devices)

    def all_gather(self, size: float, devices: int) -> float:
        """Seconds until all have a whole of `size` bytes, of which each had its part."""
        return self._half(size, devices)

    def _half(self, size: float, devices: int) -> float:
        if devices < 2:
            return 0.0
        hops = devices - 1 if devices <= self.per_node else min(devices - 1, math.log2(devices))
        return hops * self.one_message(devices) + (devices - 1) / devices * size / self.rate(devices)


@dataclass(frozen=True)
class Step:
    """One step on one device, and what it sends.

    Attributes:
        forward: seconds.
        backward: seconds.
        rest: seconds of optimiser, views and all else.
        gradients: bytes.
        reduced: bytes of each all-reduce that is waited for, of SyncBN and of the loss.
        gathered: bytes that each device hands to all-gathers that are waited for, of SyncBN and of the loss.
        gathers: how many all-gathers that are.
        busy: share of a message's time that it takes from computing on the same processor; 0 where links work
            by themselves.
    """

    forward: float
    backward: float
    rest: float = 0.0
    gradients: float = 0.0
    reduced: tuple[float, ...] = ()
    gathered: float = 0.0
    gathers: int = 0
    busy: float = 0.0

    @property
    def compute(self) -> float:
        """Seconds without any message."""
        return self.forward + self.backward + self.rest


@dataclass(frozen=True)
class Prediction:
    """Seconds of a step, and what of them is computed and waited for.

    Attributes:
        seconds: all of them.
        compute: without messages.
        waits: for collectives that stand between layers.
        exposed: for gradients after the backward pass.
        messages: seconds of all messages, whether they are waited for or not.
    """

    seconds: float
    compute: float
    waits: float
    exposed: float
    messages: float

    @property
    def efficiency(self) -> float:
        """Share of the time of one device alone, with as much work for each."""
        return self.compute / self.seconds


def buckets(gradients: float) -> list[float]:
    """Bytes of each bucket in the order in which they are sent.

    Example:
        >>> [round(size / 2**20) for size in buckets(60 * 2**20)]
        [1, 25, 25, 9]
    """
    sizes, left = [min(FIRST_BUCKET, gradients)], gradients - FIRST_BUCKET
    while left > 0:
        sizes.append(min(BUCKET, left))
        left -= BUCKET
    return sizes


def predict(step: Step, links: Links, devices: int) -> Prediction:
    """Predict a step of data-parallel training with as much work for each device.

    Args:
        step: its parts on one device.
        links: between the devices.
        devices: how many.

    Example:
        >>> step = Step(forward=0.1, backward=0.2, gradients=100e6)
        >>> predict(step, Links(1e-5, 10e9), 1).efficiency
        1.0
        >>> round(predict(step, Links(1e-5, 1e9), 8).efficiency, 2)
        0.88
    """
    if devices < 2:
        return Prediction(step.compute, step.compute, 0.0, 0.0, 0.0)
    waits = sum(links.all_reduce(size, devices) for size in step.reduced)
    if step.gathers:
        share = step.gathered * devices / step.gathers
        waits += step.gathers * links.all_gather(share, devices)
    sizes = buckets(step.gradients)
    times = [links.all_reduce(size, devices) for size in sizes]
    backward = step.backward + step.busy * sum(times[:-1])  # sums of messages are made by the same processor
    done = ready = 0.0
    for size, seconds in zip(sizes, times, strict=True):
        ready += backward * size / max(step.gradients, 1.0)
        done = max(done, ready) + seconds
    exposed = max(done - backward, 0.0) if step.gradients else 0.0
    slowed = backward - step.backward
    total = step.compute + waits + slowed + exposed
    return Prediction(total, step.compute, waits, exposed + slowed, waits + sum(times))


def predict_sharded(step: Step, links: Links, devices: int, layers: int) -> Prediction:
    """Predict a step whose parameters are sharded (FSDP): gathered for either pass, gradients scattered.

    Each layer is gathered while the one before is computed; the first of either pass is waited for, and the
    last scattering. Messages beyond the time of computing are waited for too.

    Args:
        step: `gradients` are the bytes of one copy of the parameters in the precision that is sent.
        links: between the devices.
        devices: how many share the parameters.
        layers: that are gathered one by one.
    """
    if devices < 2:
        return predict(step, links, devices)
    one = links.all_gather(step.gradients / layers, devices)
    plain = predict(replace(step, gradients=0.0), links, devices)
    ahead, behind = layers * one, 2 * layers * one
    exposed = 3 * one + max(ahead - one - step.forward, 0.0) + max(behind - 2 * one - step.backward, 0.0)
    return Prediction(
        plain.seconds + exposed, step.compute, plain.waits, exposed, plain.messages + ahead + behind
    )


def fit_links(sizes: Sequence[float], seconds: Sequence[float], devices: int) -> Links:
    """Latency and bandwidth that explain measured all-reduces best, by relative error.

    Example:
        >>> true = Links(latency=5e-5, bandwidth=2e9)
        >>> sizes = [2.0**k for k in range(10, 26)]
        >>> found = fit_links(sizes, [true.all_reduce(size, 4) for size in sizes], 4)
        >>> round(found.latency * 1e6), round(found.bandwidth / 1e9, 3)
        (50, 2.0)
    """
    # seconds = a + b size, with weights 1 / seconds: two normal equations
    s = [(1 / t, size / t) for size, t in zip(sizes, seconds, strict=True)]
    aa, ab, bb = (sum(x[i] * x[j] for x in s) for i, j in ((0, 0), (0, 1), (1, 1)))
    ra, rb = (sum(x[i] for x in s) for i in (0, 1))
    det = aa * bb - ab * ab
    a, b = max((ra * bb - rb * ab) / det, 0.0), max((aa * rb - ab * ra) / det, 1e-15)
    return Links(a / (2 * (devices - 1)), 2 * (devices - 1) / devices / b)
