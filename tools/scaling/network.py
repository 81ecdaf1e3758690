"""Nodes, what connects them, and how a bucket is summed over all ranks: a discrete-event model.

All nodes have the same load, so one is simulated for all: its NIC, one rank's bus inside the node, and one rank's thread for messages and sums.
Costs of a message are those of LogGP (Alexandrov et al. 1995): latency, overhead at each end, and time a byte. A link sends at full rate in both
directions at once. What has been handed over to it leaves in order, what has not waits by priority. So a question, be it of 64 bytes, stands behind the
bytes that were handed over before, and its answer behind those of the other side; on a slow link with little under way that is what limits.

Sums are those of runtime/net (stages.c, tree.c), by the ways that it would choose (ways.py):

    flat          nodes are not known to the ranks, or of no use: their neighbours are not equal in number, or no power of two
    hierarchical  they are: within the node first, then each rank's part across nodes, and back
"""
import heapq
import math
from dataclasses import dataclass

import ways
from ways import EAGER_BYTES, LIVE_CHUNKS, PIECE_BYTES

# Of runtime/net: stages.c, wire.c.
SUM_MEMORY, WINDOW = 1 << 25, 4
MPI_EAGER = (1 << 18) + 4096  # that runtime/net sets for Open MPI over TCP: more would wait until the receiver has answered
MEASURED_BYTES = 1 << 22  # of a message by which a program measures bandwidth (measure.c)


@dataclass(frozen=True)
class Cluster:
    nic: float  # bytes/s of a node in each direction
    latency: float  # s between nodes, one way
    gpus: int = 1  # ranks of a node
    bus: float = math.inf  # bytes/s of a rank to those of its node, in each direction
    bus_latency: float = 0.0
    add: float = math.inf  # bytes of summands a second
    message: float = 0.0  # s of a rank's thread for a message, at each end
    algorithm: str = "flat"

    def nodes(self, ranks):
        return -(-ranks // self.gpus)

    def measured(self, ranks):
        """Latency and bandwidth as a program of so many ranks measures them: those of the slowest pair while all ranks measure."""
        link = self.far(ranks)
        return link.latency, link.bandwidth

    def link(self, latency, rate):
        latency += 2 * self.message
        seconds = 3 * latency + MEASURED_BYTES / rate
        return ways.Link(latency, MEASURED_BYTES / seconds if seconds > 0 else math.inf, max(self.message, 5e-8))

    def near(self):
        return self.link(self.bus_latency, self.bus)

    def far(self, ranks):
        """Of a rank, while its node's others measure, too."""
        return self.link(self.latency, self.nic / self.gpus) if ranks > self.gpus else self.near()

    def way(self, ranks, elements):
        nodes = ways.node_ranks(self.gpus, ranks) if self.algorithm == "hierarchical" else 0
        return ways.choose(ranks, nodes, self.near() if nodes else ways.Link(0.0, math.inf, 0.0), self.far(ranks), elements)


class Clock:
    def __init__(self):
        self.now, self.count, self.events = 0.0, 0, []

    def at(self, when, run):
        heapq.heappush(self.events, (when, self.count, run))
        self.count += 1

    def after(self, seconds, run):
        self.at(self.now + seconds, run)

    def run(self):
        while self.events:
            self.now, _, run = heapq.heappop(self.events)
            run()


class Queue:
    """Serves one at a time; what waits, by priority."""

    def __init__(self, clock):
        self.clock, self.waiting, self.count, self.serving = clock, [], 0, False
        self.busy, self.bytes = 0.0, 0.0

    def put(self, priority, seconds, run, amount=0.0):
        heapq.heappush(self.waiting, (-priority, self.count, seconds, run))
        self.count += 1
        self.busy += seconds
        self.bytes += amount
        if not self.serving:
            self.serve()

    def serve(self):
        self.serving = bool(self.waiting)
        if self.serving:
            _, _, seconds, run = heapq.heappop(self.waiting)
            self.clock.after(seconds, lambda: self.served(run))

    def served(self, run):
        run()
        self.serve()


class Wire:
    """A link as runtime/net and MPI use it: bytes leave in the order in which they were handed over; pieces wait by priority until less than WINDOW to a
    rank are under way. All other ranks get pieces of the same size at the same time, so what goes to all of them is one here."""

    def __init__(self, clock, rate, latency):
        self.clock, self.rate, self.latency = clock, rate, latency
        self.waiting, self.count, self.under_way, self.free = [], 0, 0, 0.0
        self.busy, self.bytes = 0.0, 0.0

    def leave(self, amount, run):
        """Calls when the bytes have left."""
        seconds = amount / self.rate
        self.busy += seconds
        self.bytes += amount
        self.free = max(self.free, self.clock.now) + seconds
        self.clock.at(self.free, run)

    def frame(self, run, amount=0.0):
        """Calls when it is there."""
        self.leave(amount, lambda: self.clock.after(self.latency, run))

    def piece(self, priority, amount, asks, run):
        """`asks`: the part of it behind which an answer is waited for; 1: none."""
        heapq.heappush(self.waiting, (-priority, self.count, amount, asks, run))
        self.count += 1
        self.start()

    def start(self):
        while self.waiting and self.under_way < WINDOW:
            _, _, amount, asks, run = heapq.heappop(self.waiting)
            self.under_way += 1
            rest = lambda amount=amount * (1 - asks), run=run: self.leave(amount, lambda: self.sent(run))
            if asks < 1:
                self.frame(lambda rest=rest: self.frame(rest), amount * asks)
            else:
                self.leave(amount, lambda run=run: self.sent(run))

    def sent(self, run):
        self.under_way -= 1
        self.clock.after(self.latency, run)
        self.start()


class Room:
    """Memory for summands: who does not fit waits by priority. One is let in in any case."""

    def __init__(self, total):
        self.total, self.used, self.waiting, self.count = total, 0, [], 0

    def take(self, priority, amount, run):
        heapq.heappush(self.waiting, (-priority, self.count, amount, run))
        self.count += 1
        self.admit()

    def give(self, amount):
        self.used -= amount
        self.admit()

    def admit(self):
        while self.waiting and (self.used == 0 or self.used + self.waiting[0][2] <= self.total):
            _, _, amount, run = heapq.heappop(self.waiting)
            self.used += amount
            run()


class Network:
    def __init__(self, clock, cluster, ranks):
        self.clock, self.cluster, self.ranks = clock, cluster, ranks
        self.nic = Wire(clock, cluster.nic, cluster.latency)
        self.bus = Wire(clock, cluster.bus, cluster.bus_latency)
        self.thread = Queue(clock)
        self.memory = Room(SUM_MEMORY)
        latency, bandwidth = cluster.measured(ranks) if ranks > 1 else (0.0, math.inf)
        # From so many bytes on a bucket is split over the ranks (kvstore/join.c).
        self.large = min(4e6, max(4096, 20 / ranks * latency * bandwidth if bandwidth < math.inf else 0))

    # ---- in order: each stage starts the next

    def stages(self, stages, priority, done):
        """Stages: (queue, seconds, bytes), or seconds of delay, or a function of what to call next."""
        def step(i):
            if i == len(stages):
                done()
            elif callable(stages[i]):
                stages[i](lambda: step(i + 1))
            elif isinstance(stages[i], tuple):
                queue, seconds, amount = stages[i]
                queue.put(priority, seconds, lambda: step(i + 1), amount)
            else:
                self.clock.after(stages[i], lambda: step(i + 1))
        step(0)

    @property
    def far(self):
        """What the slowest messages of a flat sum go over."""
        return self.nic if self.ranks > self.cluster.gpus else self.bus

    def shares(self, each, stride=1, radix=0):
        """Bytes on a rank's bus and on its node's NIC when every rank sends `each` to every other of its group: those that differ in one digit."""
        inside = min(self.cluster.gpus, self.ranks)
        near = min(-(-inside // stride), radix or self.ranks) - 1
        return each * near, each * ((radix or self.ranks) - 1 - near) * inside

    def send(self, each, priority, stride=1, radix=0):
        """A stage: each rank sends `each` bytes to every other of its group, first to those of its node; in pieces, one behind the other."""
        near, beyond = self.shares(each, stride, radix)
        pieces = max(1, math.ceil(each / PIECE_BYTES))
        asks = min(1.0, MPI_EAGER * pieces / each) if each else 1.0

        def all_of(wire, amount, next):
            state = {"left": pieces}

            def sent():
                state["left"] -= 1
                if state["left"] == 0:
                    next()
            for _ in range(pieces):
                wire.piece(priority, amount / pieces, asks, sent)

        def run(next):
            if not beyond:
                all_of(self.bus, near, next)
            elif near:
                all_of(self.bus, near, lambda: all_of(self.nic, beyond, next))
            else:
                all_of(self.nic, beyond, next)
        return run

    def ask(self, size, wire=None):
        """A stage: a large message is offered, and granted by its receiver."""
        wire = wire or self.far
        return (lambda next: wire.frame(lambda: wire.frame(next))) if size > EAGER_BYTES else 0.0

    def handle(self, messages, added=0.0):
        return (self.thread, messages * self.cluster.message + added / self.cluster.add, 0.0)

    # ---- ways

    def in_stages(self, size, radices, whole, priority, done):
        sizes = [whole] * (size // whole) + ([size % whole] if size % whole else [])
        state = {"left": len(sizes), "next": 0}

        def more():
            if state["next"] < len(sizes):
                state["next"] += 1
                chunk(sizes[state["next"] - 1])

        def ended():
            state["left"] -= 1
            if state["left"] == 0:
                done()
            more()

        def chunk(left):
            down, up, stride = [], [], 1
            for radix in radices:
                left /= radix
                handled = self.handle(2 * ways.frames(left) * (radix - 1))
                wire = self.nic if self.shares(1, stride, radix)[1] else self.bus
                room = left * (radix - 1) if left > EAGER_BYTES else 0
                down += [handled, self.ask(left, wire), lambda next, room=room: self.memory.take(priority, room, next), self.send(left, priority, stride, radix),
                         self.handle(0, left * radix), lambda next, room=room: (self.memory.give(room), next())]
                up = [handled, self.ask(left, wire), self.send(left, priority, stride, radix)] + up
                stride *= radix
            self.stages(down + up, priority, ended)

        for _ in range(LIVE_CHUNKS):
            more()

    def whole(self, size, priority, done):
        n = self.ranks
        self.stages([self.handle(2 * (n - 1)), self.send(size, priority), self.handle(0, n * size)], priority, done)

    def tree(self, size, priority, done):
        """Up and down a binomial tree: a link carries the bytes twice, the levels follow each other."""
        n, levels = self.ranks, math.ceil(math.log2(self.ranks))
        asked, frames = (2 * self.far.latency, 3) if size > EAGER_BYTES else (0.0, 1)
        later = (2 * levels - 1) * (asked + self.far.latency + size / self.far.rate)
        self.stages([self.handle(4 * frames, 2 * size), self.ask(size), self.send(2 * size / n, priority), later], priority, done)

    def items(self, sent, returned, priority, done):
        """One rank, another one for each bucket, adds what all send it. On its link there are the bytes of all, on the mean of links a part of them."""
        n = self.ranks
        frames = 3 if max(sent, returned) > EAGER_BYTES else 1
        mean = sum(self.shares((sent + returned) / n)) / self.far.rate
        self.stages([self.handle(4 * frames, sent), self.ask(sent), self.send(sent / n, priority), max(0.0, (n - 1) * (sent + returned) / self.far.rate - mean),
                     self.ask(returned), self.send(returned / n, priority)], priority, done)

    # ----

    def all_reduce(self, bucket, done):
        size = bucket.bytes
        if self.ranks == 1 or size == 0:
            self.clock.after(0, done)
        elif bucket.is_sparse or size < self.large:
            self.items(size, bucket.returned, bucket.priority, done)
        else:
            way = self.cluster.way(self.ranks, max(1, size // ways.ELEMENT))
            if way.kind == "tree":
                self.tree(size, bucket.priority, done)
            elif way.kind == "whole":
                self.whole(size, bucket.priority, done)
            else:
                self.in_stages(size, way.radix, way.chunk * ways.ELEMENT, bucket.priority, done)
