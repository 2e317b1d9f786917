"""Writes `scale.md` beside itself: what is sent, held and waited for on 1 to 512 GPUs, and how that is
predicted.

Counts of networks and the check on processes of one machine are in `benchmarks/scale.json`, the formulas in
`benchmarks/scale_model.py`; text and tables are made of both.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
DEVICES = (1, 8, 64, 512)
PEAK = 312e12  # operations a second of an A100 in bfloat16, by its data sheet
SHARES = {"ResNet": 0.22, "ViT-B": 0.38, "ViT-L": 0.45}  # of the peak that such networks reach: assumed
IMAGE = 110e3  # bytes of an ImageNet JPEG, on average
IMAGES = 1_281_167
SAMPLE, TAPS = 2048, 4
LAYERS = {"ResNet": 16, "ViT-B": 12, "ViT-L": 24}  # blocks that are gathered one by one
PASSES = {
    "SimSiam": (2, 0),
    "MoCo v3": (2, 2),
    "DINO": (2, 2),
}  # views that learn, and that a target only sees
LOSS = {"SimSiam": 0, "MoCo v3": 2 * 64 * 256 * 4, "DINO": 65_536 * 4}  # bytes that a device hands on
GATHERED = ("MoCo v3",)  # whose loss gathers keys; DINO sums its centre

HEAD = """# Scale

Made by `docs/make_scale_table.py` from `benchmarks/scale.json` and `benchmarks/scale_model.py`; do not
edit. [launching.md](launching.md) tells how a run is started on many devices, and how it goes on after one
has failed.

**Counted**: parameters, operations, BatchNorms and memory of a step, by the networks themselves on tensors
without contents (`python benchmarks/scale.py --networks`). **Measured**: the table at the end, on processes
of one machine. **Estimated**: every time and efficiency on GPUs. No run on 8 or more GPUs stands behind
them; they say what to expect if the inputs below hold, and which term to look at where they do not.

## Inputs of the estimates
"""

FORMULAS = """
## Formulas

For p GPUs, messages of S bytes, links of B bytes a second for a GPU on the slowest hop, and a latency L:

| | seconds | bytes that a GPU sends |
|---|---|---|
| all-reduce on a ring | 2 (p - 1) L + 2 (p - 1)/p S / B | 2 (p - 1)/p S |
| all-gather, reduce-scatter | (p - 1) L + (p - 1)/p S / B | (p - 1)/p S |

Over several nodes trees bring p - 1 in the first terms down to log2 p. Gradients go in buckets of 25 MiB
(the first one of 1 MiB), each when the backward pass has made it, one after the other. A step waits for
what is still on its way when the backward pass ends, and for every collective of BatchNorm and loss where
it stands:

    step = forward + backward + exposed gradients + SyncBN + loss
    efficiency = (forward + backward) / step

- **Gradients**: 4 bytes a trained parameter, one all-reduce a step (2 (p - 1)/p of it sent).
- **SyncBN**: a BatchNorm of C channels gathers 2 C + 1 numbers forth, and sums 2 C back, once a view.
- **Loss**: SimSiam sends nothing. MoCo v3 gathers its keys, 256 numbers a view and image. DINO sums a
  centre of 65,536 numbers.
- **Panel**: moments are one all-gather of 4 d + 1 numbers and one all-reduce of 2 d² in double precision a
  tap; the sample is one all-gather of 2,048 rows. Once a panel, not once a step; with `--panels beside` no
  step waits for it.
- **FSDP**: parameters are gathered for the forward and for the backward pass, and gradients scattered: 3 (p
  - 1)/p of their bytes, which are half as many in bfloat16.
- **Memory**: parameters, buffers, momentum copy and optimiser state; gradients; activations. FSDP divides
  all but the activations by p, and holds two blocks whole.
"""


def model() -> ModuleType:
    """The formulas."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    return importlib.import_module("scale_model")


def of(name: str, table: dict[str, Any]) -> Any:
    """The entry whose key the name of a case holds."""
    return next(value for key, value in table.items() if key in name)


def links(m: ModuleType) -> Any:
    """Assumed: NVLink within a node of eight, four links of 200 Gb/s between nodes."""
    return m.Links(latency=2e-6, bandwidth=230e9, node_latency=6e-6, node_bandwidth=80e9, per_node=8)


def step_of(m: ModuleType, name: str, network: dict[str, Any]) -> Any:
    """The parts of a step on one GPU."""
    learning, watched = of(name, PASSES)
    batch, rate = network["batch"], PEAK * of(name, SHARES)
    forward = batch * network["flop"] * (learning + watched) / rate
    norms = [channels for channels in network["norms"] for _ in range(learning)]
    loss = of(name, LOSS)
    gathers = any(method in name for method in GATHERED)
    return m.Step(
        forward=forward,
        backward=2 * batch * network["flop"] * learning / rate,
        gradients=4.0 * network["trained"],
        reduced=(*(8.0 * channels for channels in norms), *([] if gathers or not loss else [float(loss)])),
        gathered=sum(8.0 * channels + 4 for channels in norms) + (loss if gathers else 0),
        gathers=len(norms) + gathers,
    )


def amount(value: float) -> str:
    """Bytes in a unit that suits."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def row(*cells: Any) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |\n"


def table(*titles: str) -> str:
    """The head of a table."""
    return row(*titles) + row(*["---"] * len(titles))


def inputs(m: ModuleType, networks: dict[str, Any]) -> str:
    """What is assumed, and what is counted."""
    wires = links(m)
    text = f"""
- A GPU computes {PEAK / 1e12:.0f} TFLOP/s in bfloat16 at most (A100), of which ResNet-50 reaches
  {SHARES["ResNet"]:.0%}, ViT-B {SHARES["ViT-B"]:.0%} and ViT-L {SHARES["ViT-L"]:.0%} (assumed).
- Eight GPUs make a node; a GPU sends {wires.bandwidth / 1e9:.0f} GB/s within it, {wires.latency * 1e6:.0f}
  µs late; a ring over nodes sends {wires.node_bandwidth / 1e9:.0f} GB/s, {wires.node_latency * 1e6:.0f} µs
  late (assumed: NVLink, and four links of 200 Gb/s a node).
- An image is a JPEG of {IMAGE / 1e3:.0f} kB, and ImageNet-1k has {IMAGES:,}: {amount(IMAGE * IMAGES)} an
  epoch.

"""
    text += table(
        "", "images a GPU", "backbone", "trained", "operations, one image forth", "BatchNorms a view"
    )
    for name, network in networks.items():
        text += row(
            name,
            network["batch"],
            f"{network['backbone'] / 1e6:.1f} M",
            f"{network['trained'] / 1e6:.1f} M",
            f"{network['flop'] / 1e9:.1f} GFLOP",
            f"{len(network['norms'])}, {sum(network['norms']):,} channels",
        )
    return text


def volumes(m: ModuleType, name: str, network: dict[str, Any]) -> str:
    """What a GPU sends, reads and waits for."""
    step, text = step_of(m, name, network), f"\n### {name}\n\n"
    learning = of(name, PASSES)[0]
    text += table(
        "GPUs", "images a step", "step", "images/s", "efficiency", "gradients sent", "SyncBN sent",
        "loss sent", "read by a GPU", "steps an epoch",
    )  # fmt: skip
    for p in DEVICES:
        found, share = m.predict(step, links(m), p), (p - 1) / p
        batch = network["batch"] * p
        channels = learning * sum(network["norms"])
        syncbn = share * (8 * channels * p + 2 * 8 * channels) if p > 1 else 0
        loss = of(name, LOSS) * ((p - 1) if name.split(", ")[1] in GATHERED else 2 * share)
        text += row(
            p,
            f"{batch:,}",
            f"{found.seconds * 1e3:.0f} ms",
            f"{batch / found.seconds:,.0f}",
            f"{found.efficiency:.1%}",
            amount(2 * share * step.gradients),
            amount(syncbn),
            amount(loss),
            f"{amount(IMAGE * network['batch'] / found.seconds)}/s",
            f"{IMAGES // batch:,}",
        )
    return text


def memory(m: ModuleType, networks: dict[str, Any]) -> str:
    """Bytes of a GPU with and without FSDP, and what that sends."""
    text = "\n## Memory of a GPU, with and without FSDP\n\n"
    text += "Weights are parameters, buffers, momentum copy and optimiser state, in single precision.\n\n"
    text += table("", "weights", "gradients", "activations", *(f"all, FSDP, {p} GPUs" for p in DEVICES),
                  "sent by FSDP a step, 64", "efficiency of FSDP, 64")  # fmt: skip
    for name, network in networks.items():
        gradients = 4.0 * network["trained"]
        weights, activations = network["weights_bytes"], network["step_bytes"] - gradients
        layers = of(name, LAYERS)
        sharded = [
            (weights + gradients) / p + activations + (2 * 4.0 * network["trained"] / layers if p > 1 else 0)
            for p in DEVICES
        ]
        step = step_of(m, name, network)
        halves = m.Step(**{**vars(step), "gradients": 2.0 * network["trained"]})
        found = m.predict_sharded(halves, links(m), 64, layers)
        text += row(
            name,
            amount(weights),
            amount(gradients),
            amount(activations),
            *map(amount, sharded),
            amount(3 * 63 / 64 * halves.gradients),
            f"{found.efficiency:.1%}",
        )
    return text + "\nThe column of one GPU is what DDP takes on every GPU, whatever their number.\n"


def panel(networks: dict[str, Any]) -> str:
    """What a panel sends."""
    text = f"\n## A panel of {TAPS} taps\n\n"
    text += table("", "d", "moments summed", "means gathered from each GPU", "sample, all GPUs together")
    for name, network in networks.items():
        d = network["width"]
        moments, means = 16 * d * d * TAPS, 8 * (4 * d + 1) * TAPS
        text += row(name, f"{d:,}", amount(moments), amount(means), amount(SAMPLE * (16 + 4 * d) * TAPS))
    return text


def check(found: dict[str, Any]) -> str:
    """The prediction beside what was measured."""
    machine = found["machine"]
    text = f"""
## The prediction, checked

`{found["command"]}`, {found["date"]}, {machine["cpu"]}, {machine["cores"]} cores, load {found["load"]:.1f}
from other programs and these: SimSiam with a CIFAR ResNet-18, {found["batch"]} images a process, one thread
each, DDP over gloo. Forward and backward pass are measured with all processes at work and no message,
latency and bandwidth fitted to all-reduces of 1 kB to 32 MB; the prediction is made from these parts alone.

"""
    text += table(
        "processes", "forward + backward", "latency", "bandwidth", "step", "predicted", "measured", "error"
    )
    for each in found["rows"]:
        compute = f"{each['forward'] + each['backward']:.3f} s"
        if each["processes"] == 1:
            text += row(1, compute, "", "", "no messages", compute, compute, "by definition")
            continue
        for kind, words in (("plain", "DDP"), ("synchronised", "DDP, SyncBN")):
            one = each[kind]
            text += row(
                each["processes"],
                compute,
                f"{each['latency'] * 1e6:.0f} µs",
                f"{each['bandwidth'] / 1e9:.2f} GB/s",
                words,
                f"{one['predicted']:.3f} s",
                f"{one['measured']:.3f} s",
                f"{one['error']:+.0%}",
            )
    errors = [abs(each[kind]["error"]) for each in found["rows"] if "plain" in each
              for kind in ("plain", "synchronised")]  # fmt: skip
    waits = [
        1 - (each["forward"] + each["backward"]) / each[kind]["predicted"]
        for each in found["rows"]
        if "plain" in each
        for kind in ("plain", "synchronised")
    ]
    share = max(waits)
    return (
        text
        + f"""
The largest error is {max(errors):.0%}. That says little for the model: by the prediction messages
are {share:.1%} of a step here at most, and under such a load computing itself varies by more. The check shows
that no large part is missing; how well messages are predicted is to be seen on an idle machine, by the same
command. The model counts the time of a message as taken from computing, for here both share processors.
"""
    )


MEASURES = """
## Audits and probes by many processes

    fullrank audit features --processes 8                            # a folder of shards, by eight processes
    torchrun --nproc-per-node 8 -m fullrank audit "features/part-*.npy"    # as torchrun starts them
    fullrank audit s3://bucket/features                              # through fsspec; install s3fs yourself
    torchrun --nproc-per-node 8 -m fullrank evaluate knn runs/first  # linear and cluster likewise

- Each file is read by one process; a single file that can be sliced is shared by rows. All files are one
  matrix in natural order, and the audit is that of one process to 1e-10 of what each metric reads, or of its
  range where that goes through 0, as a cosine's does: sums are added, the rows that are compared are chosen
  by their place in the whole, and what is far from all others is judged from the first rows of the whole.
- A process holds a chunk, the moments (2 d (d + 2) numbers), samples of 2,048 rows and of 16,384 short
  ones, a distance a row that it reads, and at most 4 million hashes of rows. No collective gathers rows but
  those of the samples.
- k-NN: parts of the bank visit all processes in turn, so a process holds two of them. k-means and logistic
  regression send sums alone; labels, a number a row, are everywhere. Papers' protocols, `--legacy` ways,
  fine-tuning and files of embeddings are evaluated in one process.
- A file behind an address is copied to a temporary folder when its turn comes; 1 GiB of such files is kept.
- What keeps several processes from being as many times as fast: the start of each (the import of PyTorch),
  the metrics of the sample and the page, which every one waits for, and memory that processors share.
"""


def shards() -> str:
    """How fast an audit of many files was."""
    file = ROOT / "benchmarks" / "audit_shards.json"
    if not file.exists():
        return (
            "\n`python benchmarks/audit_shards.py` measures it; no figure of an idle machine is on record.\n"
        )
    found = json.loads(file.read_text())
    where = f"{found['machine']['cores']} cores, load {found['load']:.1f}"
    text = f"\n`{found['command']}`, {found['date']}, {where}:\n\n"
    text += table("", "command", "speed-up", "audit alone", "speed-up", "largest difference")
    for each in found["rows"]:
        text += row(
            each["way"],
            f"{each['command']:.1f} s",
            f"{each['command speed-up']:.2f}",
            f"{each['audit']:.1f} s",
            f"{each['audit speed-up']:.2f}",
            f"{each['largest difference']:.0e}",
        )
    return text


def page() -> str:
    """The whole page."""
    m, found = model(), json.loads((ROOT / "benchmarks" / "scale.json").read_text())
    networks = found["networks"]
    text = HEAD + inputs(m, networks) + FORMULAS + "\n## A step, and what is sent\n\n"
    text += "All times are estimates. Every GPU has as many images whatever their number (weak scaling).\n"
    text += "".join(volumes(m, name, network) for name, network in networks.items())
    text += memory(m, networks) + panel(networks) + MEASURES + shards()
    return text + check(found["check"])


if __name__ == "__main__":
    Path(__file__).with_name("scale.md").write_text(page())
