"""What a step over ranks sends, and when: the compiler's tables as `./MODEL exchange` prints them, and the buckets that a program cuts from them.

Buckets follow runtime/program/rank_buckets.c, bytes and order and all: neighbours in the order in which they become final, of a size for which the
last bucket would have arrived first, by the latency and bandwidth that the program measures. tests/scaling compares this choice with the runtime's
own words; whoever changes one changes the other."""
import json
from dataclasses import dataclass, field

ALIGN = 64  # bytes, of every tensor in the memory of gradients
STATUS_HEAD = 3  # floats of the status of a step, before its results
SIZES = [1 << i for i in range(14, 29)]  # of buckets, that are tried


class BadInput(Exception):
    pass


@dataclass
class Tensor:
    name: str
    dtype: str
    bytes: int
    group: int
    final: float  # part of a step's computation after which it is final
    rows: int = 0  # that can be other than zeros; 0: all
    row_bytes: int = 0

    def is_sparse(self, ranks):
        return bool(self.rows and self.row_bytes) and 2 * self.rows * ranks <= self.bytes // self.row_bytes


@dataclass
class Group:
    number: int
    need: float  # part of the next step's computation before which it must have changed its parameters; 1: its end
    priority: int
    tensors: list = field(default_factory=list)  # indices


@dataclass
class Bucket:
    tensors: list  # indices; the status is the last one
    bytes: int  # sent by a rank
    returned: int  # bytes of what comes back, the rows of all ranks where it is sparse
    priority: int
    is_sparse: bool


class Schedule:
    """Tensors in the order in which they become final, the status of the step as the last one; groups in the order of their need."""

    def __init__(self, table, results=1):
        try:
            whole = max([t["flops_before"] for t in table["tensors"]] + [1])
            self.model = table["model"]
            self.has_report = table["report"]  # results of the step need the averages: it waits for all of its own
            self.tensors = [Tensor(t["name"], t["dtype"], t["bytes"], t["group"], t["flops_before"] / whole, t["rows_touched"],
                                   t["row_elements"] * t["bytes"] // t["elements"] if t["elements"] else 0) for t in table["tensors"]]
            count = len(table["groups"])
            self.groups = [Group(g["group"], min(1.0, g["flops_before_need"] / whole) if g["flops_before_need"] is not None else 1.0, count - i)
                           for i, g in enumerate(table["groups"])]
        except (KeyError, TypeError) as why:
            raise BadInput("expected what `./MODEL exchange` prints; %s" % (
                "there is no %s in it" % why if isinstance(why, KeyError) else "it has another form"))
        by_number = {g.number: g for g in self.groups}
        for i, t in enumerate(self.tensors):
            if t.group in by_number:
                by_number[t.group].tensors.append(i)
        self.priority = {g.number: g.priority for g in self.groups}
        self.tensors.append(Tensor("(status)", "f32", 4 * (STATUS_HEAD + results), -1, 1.0))

    @property
    def bytes(self):
        """Of all gradients."""
        return sum(t.bytes for t in self.tensors[:-1])

    def cut(self, size, ranks):
        """Buckets of at least `size` bytes."""
        buckets, n, place, offset = [], len(self.tensors), 0, 0
        while place < n:
            first, start = place, offset
            sparse = self.tensors[place].is_sparse(ranks)
            priority = 0
            while True:
                t = self.tensors[place]
                priority = max(priority, self.priority.get(t.group, 0))
                end = offset + t.bytes
                offset += -(-t.bytes // ALIGN) * ALIGN
                place += 1
                if place == n or sparse or self.tensors[place].is_sparse(ranks) or self.tensors[place].dtype != self.tensors[first].dtype or end - start >= size:
                    break
            sent = returned = end - start
            if sparse:
                t = self.tensors[first]
                sent = t.rows * (t.row_bytes + 8)  # a row and its number
                returned = sent * ranks
            buckets.append(Bucket(list(range(first, place)), sent, returned, priority, sparse))
        return buckets

    def arrival(self, size, seconds, ranks, latency, bandwidth):
        """When the last bucket would have arrived, from the start of a computation of `seconds`."""
        wire, held = 0.0, 0
        for i, t in enumerate(self.tensors):
            held += t.bytes
            if held < size and i + 1 < len(self.tensors):
                continue
            wire = max(seconds * t.final, wire) + 2 * latency + 2 * (ranks - 1) / ranks * held / bandwidth
            held = 0
        return wire

    def choose(self, seconds, ranks, latency, bandwidth):
        """The size of buckets that a program takes."""
        return min(SIZES, key=lambda size: self.arrival(size, seconds, ranks, latency, bandwidth))


def load(path):
    try:
        with open(path) as f:
            table = json.load(f)
    except OSError as why:
        raise BadInput("cannot read %s: %s" % (path, why.strerror))
    except ValueError as why:
        raise BadInput("%s: expected what `./MODEL exchange` prints, saw no JSON: %s" % (path, why))
    try:
        return Schedule(table)
    except BadInput as why:
        raise BadInput("%s: %s" % (path, why))
