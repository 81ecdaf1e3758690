"""Nodes, what connects them, and how a bucket is summed over all ranks: a discrete-event model.

All nodes have the same load, so one is simulated for all: its NIC, one rank's bus inside the node, and one rank's thread for messages and sums.
Costs of a message are those of LogGP (Alexandrov et al. 1995): latency, overhead at each end, and time a byte. A link sends at full rate in both
directions at once. What has been handed over to it leaves in order, what has not waits by priority. So a question, be it of 64 bytes, stands behind the
bytes that were handed over before, and its answer behind those of the other side; on a slow link with little under way that is what limits.

    flat          what runtime/net does (collective.c, direct.c, tree.c): straight between all pairs of ranks, wherever they are
    hierarchical  reduce-scatter within the node, all-reduce of each part across nodes, all-gather within the node
"""
import heapq
import math
from dataclasses import dataclass

# Of runtime/net: direct.c, wire.c, carrier.h, collective.c.
LIVE_CHUNKS, SMALLEST_PART, PARTS_BYTES, SUM_MEMORY = 8, 1 << 15, 1 << 23, 1 << 25
WINDOW, PIECE_BYTES, EAGER_BYTES = 4, 1 << 18, 3968 - 64
DIRECT_RANKS, TREE_SUM_BYTES = 8, 65536
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
    across: str = "halving"  # hierarchical, between nodes: direct, halving, ring
    piece: int = 1 << 20  # hierarchical: what goes at once

    def nodes(self, ranks):
        return -(-ranks // self.gpus)

    def measured(self, ranks):
        """Latency and bandwidth as a program of so many ranks measures them: those of the slowest pair while all ranks measure."""
        if ranks > self.gpus:
            shared = self.nic / (self.gpus if self.algorithm == "flat" else 1)
            latency = self.latency
        else:
            shared, latency = self.bus, self.bus_latency
        latency += 2 * self.message
        seconds = 3 * latency + MEASURED_BYTES / shared
        return latency, MEASURED_BYTES / seconds if seconds > 0 else math.inf


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
        flat = cluster.algorithm == "flat"
        self.nic = Wire(clock, cluster.nic, cluster.latency) if flat else Queue(clock)
        self.bus = Wire(clock, cluster.bus, cluster.bus_latency) if flat else Queue(clock)
        self.thread = Queue(clock)
        self.memory = Room(SUM_MEMORY)
        latency, bandwidth = cluster.measured(ranks) if ranks > 1 else (0.0, math.inf)
        # From so many bytes on a bucket is split over the ranks (kvstore/join.c).
        self.large = min(4e6, max(4096, 10 * latency * bandwidth if bandwidth < math.inf else 0))

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

    def shares(self, each):
        """Bytes on a rank's bus and on its node's NIC when every rank sends `each` to every other."""
        inside = min(self.cluster.gpus, self.ranks) - 1
        return each * inside, each * (self.ranks - 1 - inside) * (inside + 1)

    def send(self, each, priority):
        """A stage: each rank sends `each` bytes to every other, first to those of its node."""
        near, beyond = self.shares(each)
        asks = min(1.0, MPI_EAGER / each) if each else 1.0

        def run(next):
            if not beyond:
                self.bus.piece(priority, near, asks, next)
            elif near:
                self.bus.piece(priority, near, asks, lambda: self.nic.piece(priority, beyond, asks, next))
            else:
                self.nic.piece(priority, beyond, asks, next)
        return run

    def ask(self, size):
        """A stage: a large message is offered, and granted by its receiver."""
        return (lambda next: self.far.frame(lambda: self.far.frame(next))) if size > EAGER_BYTES else 0.0

    def handle(self, messages, added=0.0):
        return (self.thread, messages * self.cluster.message + added / self.cluster.add, 0.0)

    # ---- flat

    def direct(self, size, priority, done):
        n = self.ranks
        part = min(PIECE_BYTES, max(SMALLEST_PART, PARTS_BYTES // n))
        sizes = [part * n] * (size // (part * n)) + ([size % (part * n)] if size % (part * n) else [])
        state = {"left": len(sizes), "next": 0}

        def more():
            if state["next"] < len(sizes):
                state["next"] += 1
                chunk(sizes[state["next"] - 1] / n)

        def ended():
            state["left"] -= 1
            if state["left"] == 0:
                done()
            more()

        def chunk(own):
            frames, room = (3, own * (n - 1)) if own > EAGER_BYTES else (1, 0)  # offer, grant and bytes, or bytes at once
            handled = self.handle(2 * frames * (n - 1))
            self.stages([handled, self.ask(own), lambda next: self.memory.take(priority, room, next), self.send(own, priority), self.handle(0, own * n),
                         lambda next: (self.memory.give(room), next()), handled, self.ask(own), self.send(own, priority)], priority, ended)

        for _ in range(LIVE_CHUNKS):
            more()

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

    # ---- hierarchical

    def hierarchical(self, sent, returned, priority, done):
        c, n, nodes = self.cluster, self.ranks, self.cluster.nodes(self.ranks)
        inside = min(c.gpus, n)
        steps = {"direct": 1, "halving": math.ceil(math.log2(nodes)), "ring": nodes - 1}[c.across] if nodes > 1 else 0
        messages = 2 * (nodes - 1 if c.across == "direct" else steps)
        count = max(1, math.ceil(max(sent, returned) / c.piece))
        state = {"left": count}

        def ended():
            state["left"] -= 1
            if state["left"] == 0:
                done()

        within, beyond = (inside - 1) / inside, (nodes - 1) / nodes
        up, down = sent / count, returned / count
        stages = []
        if inside > 1:
            stages += [(self.bus, up * within / c.bus, up * within), c.bus_latency, self.handle(0, up)]
        if nodes > 1:
            stages += [self.handle(messages), (self.nic, up * beyond / c.nic, up * beyond), steps * c.latency, self.handle(0, up / inside),
                       self.handle(messages), (self.nic, down * beyond / c.nic, down * beyond), steps * c.latency]
        if inside > 1:
            stages += [(self.bus, down * within / c.bus, down * within), c.bus_latency]
        for _ in range(count):
            self.stages(stages, priority, ended)

    # ----

    def all_reduce(self, bucket, done):
        size = bucket.bytes
        if self.ranks == 1 or size == 0:
            self.clock.after(0, done)
        elif self.cluster.algorithm == "hierarchical":
            self.hierarchical(size, bucket.returned, bucket.priority, done)
        elif bucket.is_sparse or size < self.large:
            self.items(size, bucket.returned, bucket.priority, done)
        elif self.ranks > DIRECT_RANKS and size <= TREE_SUM_BYTES:
            self.tree(size, bucket.priority, done)
        else:
            self.direct(size, bucket.priority, done)
