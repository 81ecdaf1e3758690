"""The images, who has which, and what training on some of them is. numpy alone; the model is the module that
`mxcc build samples/digits.mxl --python` wrote."""
import math

import numpy as np

BATCH = 32


def load(path):
    """Images and labels to train with, and those held out: a fifth, drawn once."""
    table = np.loadtxt(path, delimiter=",")
    table = table[np.random.default_rng(0).permutation(len(table))]
    x, y = (table[:, :64] / 16).astype(np.float32).reshape(-1, 1, 8, 8), table[:, 64].astype(np.int32)
    n = len(x) * 4 // 5
    return (x[:n], y[:n]), (x[n:], y[n:])


def split(labels, clients, concentration=0.5, least=16, seed=1):
    """Which images each client has. Clients differ in size, by a log-normal factor, and each in its mixture of digits: a draw
    from a Dirichlet distribution (Hsu, Qi and Brown, 2019), the more one-sided the smaller its concentration."""
    rng = np.random.default_rng(seed)
    free = [list(rng.permutation(np.flatnonzero(labels == digit))) for digit in range(10)]
    weights = rng.lognormal(0, 0.7, clients)
    room = len(labels) - least * clients
    sizes = least + np.floor(weights / weights.sum() * room).astype(int)
    parts = []
    for size in sizes:
        mixture, part = rng.dirichlet([concentration] * 10), []
        while len(part) < size:
            left = mixture * [len(f) > 0 for f in free] + 1e-12 * np.array([len(f) > 0 for f in free])
            part.append(free[rng.choice(10, p=left / left.sum())].pop())
        parts.append(np.array(part))
    return parts


def weights(model):
    """What clients and server exchange: all parameters, and the running statistics of batch normalization. Without these the
    averaged model would normalize by numbers that no data gave. What the optimizer remembers stays where it is."""
    return {**model.parameters(), **{k: v for k, v in model.states().items() if not k.startswith("opt.")}}


def cosine(rate, done):
    """A learning rate that falls from `rate` to 0 along half a cosine."""
    return rate * 0.5 * (1 + math.cos(math.pi * done))


def train(model, x, y, epochs, rate, seed):
    """Epochs over the images in a new order each, in batches of about BATCH. `rate` gives the learning rate by the part of
    the work that is done. The mean loss of the last epoch."""
    rng, losses = np.random.default_rng(seed), []
    batches = math.ceil(len(x) / BATCH)
    for epoch in range(epochs):
        for i, rows in enumerate(np.array_split(rng.permutation(len(x)), batches)):
            lr = rate((epoch * batches + i) / (epochs * batches))
            losses.append(model.step(x[rows], y[rows], lr=lr).loss)
    return float(np.mean(losses[-batches:]))


def accuracy(model, x, y):
    """The part of the images that the model reads right."""
    return sum(int(model.score(x[i : i + 64], y[i : i + 64])) for i in range(0, len(x), 64)) / len(x)
