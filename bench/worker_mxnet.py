"""A training step with Gluon, hybridized, of MXNet 1.9.1."""
from worker import arguments, inputs, labels, serve

model, threads, _ = arguments()
import mxnet as mx
from mxnet import autograd, gluon

nn = gluon.nn
mx.random.seed(0)
net = nn.HybridSequential()
if model == "mlp":
    shape = (64, 784)
    net.add(nn.Dense(512, activation="relu"), nn.Dense(512, activation="relu"), nn.Dense(10))
else:
    shape = (64, 1, 28, 28)
    net.add(nn.Conv2D(20, 5, activation="relu"), nn.MaxPool2D(2, 2), nn.Conv2D(50, 5, activation="relu"), nn.MaxPool2D(2, 2),
            nn.Dense(500, activation="relu"), nn.Dense(10))
net.initialize(mx.init.Xavier())
net.hybridize(static_alloc=True, static_shape=True)
criterion = gluon.loss.SoftmaxCrossEntropyLoss()
criterion.hybridize(static_alloc=True, static_shape=True)
x = mx.nd.array(inputs(64 * 784)).reshape(shape)
y = mx.nd.array(labels(64))
criterion(net(x), y).wait_to_read()
trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01}, kvstore=None)


def step():
    with autograd.record():
        loss = criterion(net(x), y)
    loss.backward()
    trainer.step(64)
    value = loss.mean().asscalar()
    mx.nd.waitall()
    return float(value)


serve(step, version=mx.__version__)
