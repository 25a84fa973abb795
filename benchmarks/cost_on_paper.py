"""A training step on D accelerators, on paper: counts of `cost.py` and the assumptions below.
Nothing here is measured.

    python benchmarks/cost_on_paper.py docs/results/cost.json

Each device reads, computes and exchanges in turn. A device of eight in a node; a ring within it, a
ring between nodes.
"""

import argparse
import json
import math
from pathlib import Path

FLOPS = 60e12  # a second, that products of matrices reach
MEMORY = 3e12  # bytes a second; XLA's bytes count what a cache may spare
LINK = 400e9  # bytes a second between the devices of a node
NETWORK = 50e9  # bytes a second between nodes, for each
NODE = 8
LATENCY = 10e-6  # of a collective within a node; between nodes more for each doubling of their number:
DOUBLING = 5e-6
DEVICES = (1, 8, 64, 512, 4096)
ROW, LJ_ROW = 4 * 2 * 2, 4 * (2 * 162 + 1)  # bytes of a point and its gradient; of LJ-55 in its 162 free dimensions
RENEWAL = 400  # steps from one renewal to the next, of the default
HEAD = "devices, points, arithmetic, sum of gradients, exchange of the batch, start of collectives, share of a renewal"


def arithmetic(count):
    """Seconds of a program on one device: its products, or its bytes if they take longer."""
    return max(count["gflop"] * 1e9 / FLOPS, count["gbyte"] * 1e9 / MEMORY)


def latency(devices):
    return LATENCY + DOUBLING * math.log2(max(devices / NODE, 1)) if devices > 1 else 0.0


def summed(size, devices):
    """Seconds of an all-reduce of so many bytes on each device: twice through each link."""
    within, nodes = min(devices, NODE), max(devices / NODE, 1)
    return 2 * size * ((within - 1) / within / LINK + (nodes - 1) / nodes / NETWORK)


def gathered(size, devices):
    """Seconds of an all-gather that gives each device so many bytes: half of that."""
    return summed(size, devices) / 2


def total(exchange, kind, what):
    return exchange.get(kind, {}).get(what, 0)


def step(points, devices, one, many, row, renewal=None):
    """Parts of a step of so many points on so many devices.

    `one` and `many` are the counts on one device, for the program's arithmetic, and on several, for
    what they exchange; `row` the bytes that are summed for each point, the rest of what is summed
    being gradients; `renewal` the counts of one. Everything but the gradients is in proportion to
    the points.
    """
    exchange, more = many["collectives"], many["renewal_collectives"]
    size = points / many["batch"]
    chain = one.get("chain", {"moves": 1, "gflop": 0, "gbyte": 0})
    count = {name: (one[name] + (chain["moves"] - 1) * chain[name]) * size / devices for name in ("gflop", "gbyte")}
    parts = [
        arithmetic(count),
        summed(total(exchange, "all-reduce", "bytes") - row * many["batch"], devices),
        summed(row * points, devices) + gathered(total(exchange, "all-gather", "bytes") * size, devices),
        sum(exchange[kind]["number"] for kind in exchange) * latency(devices),
    ]
    if renewal is None:
        return [*parts, 0.0]
    work = arithmetic({name: renewal[name] * size / devices for name in count})
    work += gathered(total(more, "all-gather", "bytes") * size, devices)
    return [*parts, (work + sum(more[kind]["number"] for kind in more) * latency(devices)) / RENEWAL]


def table(title, rows):
    print(f"\n**{title}**\n\n| {HEAD.replace(', ', ' | ')} | together | efficiency |\n{'|---' * 9}|")
    points, _, first = rows[0]
    pace = points / sum(first)
    for points, devices, parts in rows:
        cells = [f"{1e6 * part:,.1f}" for part in (*parts, sum(parts))]
        share = points / sum(parts) / pace / devices
        print(f"| {devices:,} | {points:,} | {' | '.join(cells)} | {share:.2g} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=Path)
    result = json.loads(parser.parse_args().counts.read_text())
    rows, renewal = result["devices"], result["modes"]["40"]["renewal"]
    mixture = rows["gmm40, 1024, 1"], rows["gmm40, 1024, 8"]
    particles = rows["lj55, 32, 1"], rows["lj55, 32, 8"]
    few = [(1024, n, step(1024, n, *mixture, ROW, renewal)) for n in DEVICES if n <= 1024]
    table("a: gmm40, 1,024 points", few)
    many = [(1024 * n, n, step(1024 * n, n, *mixture, ROW, renewal)) for n in DEVICES]
    table("b: gmm40, 1,024 points on each device", many)
    table("c: LJ-55, 32 points on each device", [(32 * n, n, step(32 * n, n, *particles, LJ_ROW)) for n in DEVICES])


if __name__ == "__main__":
    main()
