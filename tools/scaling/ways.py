"""Which way an all-reduce goes: runtime/net/way.c again, number for number. tests/scaling asks both; whoever changes one changes the other."""
import math
from dataclasses import dataclass
from functools import lru_cache

SMALLEST_PART, LARGEST_PART, PARTS_BYTES, LARGEST_CHUNK, MOST_CHUNKS, LIVE_CHUNKS = 1 << 15, 1 << 18, 1 << 23, 1 << 25, 64, 8
EAGER_BYTES, PIECE_BYTES, MOST_STAGES, STAGES_WORSE = 3968 - 64, 1 << 18, 16, 1.1
ELEMENT = 4  # bytes: sums of f32


@dataclass(frozen=True)
class Link:
    latency: float
    bandwidth: float
    message: float


@dataclass(frozen=True)
class Way:
    kind: str  # whole, tree, stages
    radix: tuple = ()
    chunk: int = 0  # elements


def node_ranks(each, ranks):
    return each if 1 < each < ranks and each & (each - 1) == 0 and ranks % each == 0 else 0


def frames(size):
    """Messages for so many bytes: offered, granted and sent in pieces, or sent at once."""
    return (3 if size > EAGER_BYTES else 1) + int(size / PIECE_BYTES)


class Cost:
    def __init__(self):
        self.first = self.near = self.far = self.handled = 0.0

    def add(self, link, is_far, peers, size):
        wire, handled = peers * size / link.bandwidth, 2 * peers * frames(size) * link.message
        self.first += handled + (3 if size > EAGER_BYTES else 1) * link.latency + wire
        self.handled += handled
        if is_far:
            self.far += wire
        else:
            self.near += wire


def seconds_of_stages(ranks, nodes, near, far, way, elements):
    chunks = -(-elements // way.chunk)
    left, stride, c = float(way.chunk if chunks > 1 else elements), 1, Cost()
    for radix in way.radix:
        is_far = stride * radix > (nodes or 1)
        left /= radix
        for _ in range(2):
            c.add(far if is_far else near, is_far, radix - 1, left * ELEMENT)
        stride *= radix
    return c.first + (chunks - 1) * max(c.near, c.far, c.handled, c.first / LIVE_CHUNKS)


def seconds_of_tree(ranks, nodes, near, far, size):
    levels, inside, c = math.ceil(math.log2(ranks)), math.ceil(math.log2(nodes)) if nodes else 0, Cost()
    for i in range(levels):
        for _ in range(2):
            c.add(near if i < inside else far, i >= inside, 1, size)
    return c.first


def direct(ranks):
    part = min(LARGEST_PART, max(SMALLEST_PART, PARTS_BYTES // ranks))
    return Way("stages", (ranks,), part // ELEMENT * ranks)


def split(radices, ranks, bits):
    while ranks % 2 == 0 and ranks > 1 << bits and len(radices) < MOST_STAGES - 1:
        radix = 1
        for _ in range(bits):
            if ranks % 2:
                break
            radix, ranks = radix * 2, ranks // 2
        radices.append(radix)
    if ranks > 1:
        radices.append(ranks)


def bits_of(count):
    bits = 1
    while bits == 1 or 1 << (bits - 1) < count:
        yield bits
        bits += 1


@lru_cache(maxsize=1 << 16)
def choose(ranks, nodes, near, far, elements):
    """The way of a sum of so many elements of 4 bytes; `nodes`: ranks of a node, 0 where they are of no use."""
    best = direct(ranks)
    least = seconds_of_stages(ranks, nodes, near, far, best, elements)
    inside = nodes or 1
    for within in bits_of(inside):
        for across in bits_of(ranks // inside):
            radices = []
            if inside > 1:
                split(radices, inside, within)
            split(radices, ranks // inside, across)
            if len(radices) < 2:
                continue
            chunks = 1
            while chunks <= MOST_CHUNKS:
                each = -(-elements // chunks)
                if chunks > 1 and each < ranks:
                    break
                way = Way("stages", tuple(radices), min(each, LARGEST_CHUNK // ELEMENT))
                seconds = seconds_of_stages(ranks, nodes, near, far, way, elements) * STAGES_WORSE
                if seconds < least:
                    best, least = way, seconds
                chunks *= 2
    size = float(elements * ELEMENT)
    tree = seconds_of_tree(ranks, nodes, near, far, size)
    if tree < least:
        best, least = Way("tree"), tree
    if size <= EAGER_BYTES:
        c = Cost()
        c.add(far, True, ranks - 1, size)
        if c.first <= least:
            best = Way("whole", (ranks,), elements)
    return best
