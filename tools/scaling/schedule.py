"""What a step over ranks sends, and when: the compiler's tables as `./MODEL exchange` prints them, and the buckets that a program cuts from them.

Buckets follow runtime/program/rank_buckets.c and rank_plan.c, bytes and order and all: neighbours in the order in which they become final, of a size
for which steps would follow each other fastest, by the latency and bandwidth that the program measures. tests/scaling compares this choice with
the runtime's own words; whoever changes one changes the other."""
import json
import math
from dataclasses import dataclass, field

ALIGN = 64  # bytes, of every tensor in the memory of gradients
STATUS_HEAD = 3  # doubles of the status of a step, before its results
LEAST_BYTES = 1 << 14  # of a bucket, but for the last one
SIZES = [1 << i for i in range(14, 29)]  # of buckets, that are tried
MESSAGE_SECONDS = 50e-6  # that a message costs, whatever its length
STEPS, FIRST_STEPS, LATENCIES = 8, 4, 6  # that are played; that only lead to those that count; from an offer to the sum
REACHED_AT_WORST = 0.4  # of the bandwidth
USUAL_BYTES = 1 << 24  # where smaller buckets do as well


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
    wanted: float = None  # the same, None where no step waits for it
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
            self.groups = [Group(g["group"], min(1.0, g["flops_before_need"] / whole) if g["flops_before_need"] is not None else 1.0, count - i,
                                 g["flops_before_need"] / whole if g["flops_before_need"] is not None else None)
                           for i, g in enumerate(table["groups"])]
        except (KeyError, TypeError) as why:
            raise BadInput("expected what `./MODEL exchange` prints; %s" % (
                "there is no %s in it" % why if isinstance(why, KeyError) else "it has another form"))
        by_number = {g.number: g for g in self.groups}
        for i, t in enumerate(self.tensors):
            if t.group in by_number:
                by_number[t.group].tensors.append(i)
        self.priority = {g.number: g.priority for g in self.groups}
        self.tensors.append(Tensor("(status)", "f64", 8 * (STATUS_HEAD + results), -1, 1.0))

    @property
    def bytes(self):
        """Of all gradients."""
        return sum(t.bytes for t in self.tensors[:-1])

    def cut(self, size, ranks):
        """Buckets that are full at `size` bytes, or at half of what is left."""
        buckets, n, place, starts = [], len(self.tensors), 0, [0]
        for t in self.tensors:
            starts.append(starts[-1] + -(-t.bytes // ALIGN) * ALIGN)
        end = starts[n - 1] + self.tensors[-1].bytes
        while place < n:
            first, start = place, starts[place]
            full = min(size, max((end - start) // 2, LEAST_BYTES))
            sparse = self.tensors[place].is_sparse(ranks)
            priority = 0
            while True:
                t = self.tensors[place]
                priority = max(priority, self.priority.get(t.group, 0))
                held = starts[place] + t.bytes - start
                place += 1
                if place == n or sparse or self.tensors[place].is_sparse(ranks) or self.tensors[place].dtype != self.tensors[first].dtype or held >= full:
                    break
            sent = returned = held
            if sparse:
                t = self.tensors[first]
                sent = t.rows * (t.row_bytes + 8)  # a row and its number
                returned = sent * ranks
            buckets.append(Bucket(list(range(first, place)), sent, returned, priority, sparse))
        return buckets

    def step(self, size, seconds, ranks, latency, bandwidth):
        """Seconds from the start of a step to the start of the next (ranks_plan_step): the wire as one server of what is needed first."""
        class At:
            pass
        needs, buckets = {g.number: g.wanted for g in self.groups}, []
        for cut in self.cut(size, ranks):
            b = At()
            tensors = [self.tensors[i] for i in cut.tensors]
            b.bytes = tensors[0].rows * tensors[0].row_bytes if cut.is_sparse else cut.bytes
            b.ready = max(t.final for t in tensors)
            b.need = min([1.0] + [needs[t.group] for t in tensors if needs.get(t.group) is not None])
            b.left = b.arrived = 0.0
            buckets.append(b)
        order, wire, now, start = sorted(buckets, key=lambda b: b.need), 0.0, 0.0, 0.0

        def work(wire, until, target=None):
            while target.left > 0 if target else wire < until:
                waiting = [b for b in buckets if b.left > 0]
                if not waiting:
                    return until
                b = min(waiting, key=lambda b: b.need)
                part = b.left if target else min(until - wire, b.left)
                wire += part
                b.left = b.left - part if part < b.left else 0.0
                b.arrived = wire + LATENCIES * latency
            return wire

        for played in range(STEPS):
            base = now
            if played == FIRST_STEPS:
                start = now
            need = final = 0
            while need < len(buckets) or final < len(buckets):
                wanted = need < len(buckets) and (final == len(buckets) or order[need].need <= buckets[final].ready)
                b = order[need] if wanted else buckets[final]
                need, final = need + wanted, final + (not wanted)
                now = max(now, base + (b.need if wanted else b.ready) * seconds)
                wire = work(wire, now)
                if not wanted:
                    b.left = 2.0 * (ranks - 1) * (MESSAGE_SECONDS + b.bytes / ranks / bandwidth)
                    continue
                wire = work(wire, now, b)
                if b.arrived > now:
                    base += b.arrived - now
                    now = b.arrived
            now = base + seconds
            wire = work(wire, now)
        return (now - start) / (STEPS - FIRST_STEPS)

    def choose(self, seconds, ranks, latency, bandwidth):
        """The size of buckets that a program takes."""
        best, least = 0, math.inf
        for size in SIZES:
            time = sum(self.step(size, seconds, ranks, latency, bandwidth * reached) for reached in (1, REACHED_AT_WORST))
            if time < least * (1.01 if size <= USUAL_BYTES else 1):
                best = size
            least = min(least, time)
        return best


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
