"""The networks of samples/zoo in PyTorch: same layers, same order of parameters, same optimizers, same batch."""
import torch
import torch.nn as nn
import torch.nn.functional as F

from worker import draws

BATCH = 8


class ConvNorm(nn.Sequential):
    def __init__(self, inputs, outputs, kernel, stride=1, groups=1):
        super().__init__(nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    def __init__(self, inputs, width, stride, growth):
        super().__init__()
        outputs = width * growth
        if growth == 1:
            self.body = nn.Sequential(ConvNorm(inputs, width, 3, stride), nn.ReLU(inplace=True), ConvNorm(width, width, 3))
        else:
            self.body = nn.Sequential(ConvNorm(inputs, width, 1), nn.ReLU(inplace=True), ConvNorm(width, width, 3, stride), nn.ReLU(inplace=True),
                                      ConvNorm(width, outputs, 1))
        self.project = ConvNorm(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else nn.Identity()

    def forward(self, x):
        return F.relu(self.body(x) + self.project(x), inplace=True)


def resnet(growth, depths, width=64, classes=1000):
    layers, inputs = [ConvNorm(3, width, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)], width
    for s, depth in enumerate(depths):
        for k in range(depth):
            layers.append(Residual(inputs, width * 2 ** s, 2 if k == 0 and s > 0 else 1, growth))
            inputs = growth * width * 2 ** s
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


class Inverted(nn.Module):
    def __init__(self, inputs, outputs, stride, expand):
        super().__init__()
        width = inputs * expand
        up = [ConvNorm(inputs, width, 1), nn.ReLU6(inplace=True)] if expand != 1 else []
        self.body = nn.Sequential(*up, ConvNorm(width, width, 3, stride, width), nn.ReLU6(inplace=True), ConvNorm(width, outputs, 1))
        self.identity = stride == 1 and inputs == outputs

    def forward(self, x):
        return self.body(x) + x if self.identity else self.body(x)


def mobilenet_v2(classes=1000):
    layers, inputs = [ConvNorm(3, 32, 3, 2), nn.ReLU6(inplace=True)], 32
    for expand, outputs, depth, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for k in range(depth):
            layers.append(Inverted(inputs, outputs, stride if k == 0 else 1, expand))
            inputs = outputs
    return nn.Sequential(*layers, ConvNorm(inputs, 1280, 1), nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, classes))


class Lstm(nn.Module):
    def __init__(self, words=10000, units=650, layers=2, rate=0.5, carry=True):
        super().__init__()
        self.embed, self.drop = nn.Embedding(words, units), nn.Dropout(rate)
        self.lstm = nn.LSTM(units, units, layers, dropout=rate)
        self.head = nn.Linear(units, words)
        self.carry, self.state = carry, None

    def forward(self, x):
        y, state = self.lstm(self.drop(self.embed(x)), self.state)
        self.state = tuple(s.detach() for s in state) if self.carry else None
        return self.head(self.drop(y)).flatten(0, 1)


class Layer(nn.Module):
    def __init__(self, units, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out = nn.LayerNorm(units), nn.Linear(units, 3 * units), nn.Linear(units, units)
        self.norm2, self.up, self.down = nn.LayerNorm(units), nn.Linear(units, 4 * units), nn.Linear(4 * units, units)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Transformer(nn.Module):
    def __init__(self, words=50257, units=768, heads=12, layers=12, positions=1024):
        super().__init__()
        self.embed, self.places = nn.Embedding(words, units), nn.Embedding(positions, units)
        self.parts, self.norm = nn.Sequential(*[Layer(units, heads) for _ in range(layers)]), nn.LayerNorm(units)

    def forward(self, x):
        y = self.norm(self.parts(self.embed(x) + self.places.weight[:x.shape[1]]))
        return (y @ self.embed.weight.T).flatten(0, 1)


def network(name, batch=None, carry=True):
    """A network, and a batch of inputs and labels; `batch` texts or images where not as many as in samples/zoo."""
    if name == "lstm_lm":
        net, shape, classes, labels = Lstm(carry=carry), (35, batch or 20), 10000, 35 * (batch or 20)
    elif name == "transformer":
        net, shape, classes, labels = Transformer(), (1, 512), 50257, 512
    else:
        net = mobilenet_v2() if name == "mobilenet_v2" else resnet(1, (2, 2, 2, 2)) if name == "resnet18" else resnet(4, (3, 4, 6, 3))
        shape, classes, labels = (batch or BATCH, 3, 224, 224), 1000, batch or BATCH
    count = 1
    for d in shape:
        count *= d
    x, y = draws(count, classes if name in ("lstm_lm", "transformer") else 0, labels, classes)
    return net, torch.tensor(x).reshape(shape), torch.tensor(y)


def make(name):
    """One step of training, which gives the loss."""
    net, x, y = network(name)
    trained = list(net.parameters())
    if name == "resnet50_head":
        for p in trained[:-2]:
            p.requires_grad_(False)
        trained = trained[-2:]
    if name == "transformer":
        optimizer = torch.optim.AdamW(trained, lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1)
    else:
        optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        if name == "lstm_lm":
            torch.nn.utils.clip_grad_norm_(trained, 5)
        optimizer.step()
        return loss.item()

    return step
