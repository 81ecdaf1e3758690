"""A training step with PyTorch on the CPU. Variant `compile`: through torch.compile."""
from worker import arguments, inputs, labels, serve

model, threads, variant = arguments()
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(threads)
torch.manual_seed(0)
if model == "mlp":
    shape = (64, 784)
    net = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
else:
    shape = (64, 1, 28, 28)
    net = nn.Sequential(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))
x = torch.tensor(inputs(64 * 784), dtype=torch.float32).reshape(shape)
y = torch.tensor(labels(64))
run = torch.compile(net) if variant == "compile" else net
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)


def step():
    optimizer.zero_grad(set_to_none=True)
    loss = F.cross_entropy(run(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


serve(step, version=torch.__version__)
