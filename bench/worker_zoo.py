"""Training steps of a network of samples/zoo with PyTorch or MXNet, for its memory: `worker_zoo.py MODEL THREADS torch|mxnet`. Writes one line of JSON:
losses, milliseconds of each step, the process's resident memory before the network was made (the library loaded, one operation done), and
its peak."""
import json
import time

from worker import arguments, status_kib

model, threads, system = arguments()
if system == "torch":
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.ones(1 << 16).add_(1).sum().item()
    from zoo_torch import make

    version = torch.__version__
else:
    import mxnet as mx

    mx.random.seed(0)
    (mx.nd.ones((1 << 16,)) + 1).sum().asscalar()
    from zoo_mxnet import make

    version = mx.__version__
idle = status_kib("VmRSS")
step = make(model)
losses, ms = [], []
for _ in range(3):
    begin = time.perf_counter()
    losses.append(step())
    ms.append((time.perf_counter() - begin) * 1e3)
print(json.dumps({"losses": losses, "ms": ms, "peak_kib": status_kib("VmHWM"), "idle_kib": idle, "version": version}))
