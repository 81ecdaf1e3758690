"""PyTorch's DistributedDataParallel over gloo: `worker_torch.py MODEL sleep|real BATCH`. With gradient_as_bucket_view and static_graph, without
broadcasts of running statistics: as fast as it goes."""
import os
import sys

from control import RANK, SIZE, Clock, serve, table

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

model, kind, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", rank=RANK, world_size=SIZE)
clock = Clock()


class Layer(torch.autograd.Function):
    """Needs its parameter at a time in the forward pass, has its gradient at one in the backward pass."""

    @staticmethod
    def forward(context, x, weight, times, gradient):
        context.times, context.gradient = times, gradient
        clock.until(times[0])
        return x

    @staticmethod
    def backward(context, dx):
        clock.until(context.times[1])
        return dx, context.gradient, None, None


class Sleeping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = []
        for i, k in enumerate(reversed(table())):
            weight = torch.nn.Parameter(torch.zeros(k["elements"]))
            self.register_parameter("p%d" % i, weight)
            self.parts.append((weight, (k["need"] if k["need"] < k["final"] else 0, k["final"]), torch.full((k["elements"],), 1e-3)))

    def forward(self, x):
        for weight, times, gradient in self.parts:
            x = Layer.apply(x, weight, times, gradient)
        return x


def sleeping():
    net = DistributedDataParallel(Sleeping(), broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True)
    x = torch.zeros(1, requires_grad=True)

    def step(seconds):
        clock.start(seconds)
        net(x).backward()
        clock.until(1)
        net.zero_grad(set_to_none=True)

    return step


def real():
    import zoo_torch

    net, x, y = zoo_torch.network(model, batch, carry=False)
    ranks = DistributedDataParallel(net, broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step(_):
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(ranks(x), y).backward()
        if model == "lstm_lm":
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5)
        optimizer.step()

    return step


serve(sleeping() if kind == "sleep" else real())
