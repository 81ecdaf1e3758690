"""The networks of samples/zoo in Gluon, hybridized: same layers, same optimizers, same batch."""
import mxnet as mx
from mxnet import autograd, gluon

from worker import draws

nn = gluon.nn
BATCH = 8


def conv_norm(inputs, outputs, kernel, stride=1, groups=1):
    part = nn.HybridSequential()
    part.add(nn.Conv2D(outputs, kernel, stride, (kernel - 1) // 2, groups=groups, use_bias=False, in_channels=inputs), nn.BatchNorm(in_channels=outputs))
    return part


def sequence(*parts):
    whole = nn.HybridSequential()
    whole.add(*parts)
    return whole


def relu6():
    return nn.HybridLambda(lambda F, x: F.clip(x, 0, 6))


class Residual(gluon.HybridBlock):
    def __init__(self, inputs, width, stride, growth):
        super().__init__()
        outputs = width * growth
        with self.name_scope():
            if growth == 1:
                self.body = sequence(conv_norm(inputs, width, 3, stride), nn.Activation("relu"), conv_norm(width, width, 3))
            else:
                self.body = sequence(conv_norm(inputs, width, 1), nn.Activation("relu"), conv_norm(width, width, 3, stride), nn.Activation("relu"),
                                     conv_norm(width, outputs, 1))
            self.project = conv_norm(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def hybrid_forward(self, F, x):
        return F.relu(self.body(x) + (self.project(x) if self.project else x))


def resnet(growth, depths, width=64):
    layers, inputs = [conv_norm(3, width, 7, 2), nn.Activation("relu"), nn.MaxPool2D(3, 2, 1)], width
    for s, depth in enumerate(depths):
        for k in range(depth):
            layers.append(Residual(inputs, width * 2 ** s, 2 if k == 0 and s > 0 else 1, growth))
            inputs = growth * width * 2 ** s
    return sequence(*layers, nn.GlobalAvgPool2D(), nn.Flatten())


class Inverted(gluon.HybridBlock):
    def __init__(self, inputs, outputs, stride, expand):
        super().__init__()
        width = inputs * expand
        with self.name_scope():
            up = [conv_norm(inputs, width, 1), relu6()] if expand != 1 else []
            self.body = sequence(*up, conv_norm(width, width, 3, stride, width), relu6(), conv_norm(width, outputs, 1))
        self.identity = stride == 1 and inputs == outputs

    def hybrid_forward(self, F, x):
        return self.body(x) + x if self.identity else self.body(x)


def mobilenet_v2():
    layers, inputs = [conv_norm(3, 32, 3, 2), relu6()], 32
    for expand, outputs, depth, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for k in range(depth):
            layers.append(Inverted(inputs, outputs, stride if k == 0 else 1, expand))
            inputs = outputs
    return sequence(*layers, conv_norm(inputs, 1280, 1), relu6(), nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dropout(0.2))


class Lstm(gluon.HybridBlock):
    def __init__(self, words=10000, units=650, layers=2, rate=0.5):
        super().__init__()
        with self.name_scope():
            self.embed, self.drop = nn.Embedding(words, units), nn.Dropout(rate)
            self.lstm = gluon.rnn.LSTM(units, layers, dropout=rate, input_size=units)
            self.head = nn.Dense(words, flatten=False, in_units=units)

    def hybrid_forward(self, F, x, h, c):
        y, (h, c) = self.lstm(self.drop(self.embed(x)), [h, c])
        return F.reshape(self.head(self.drop(y)), (-3, 0)), h, c


class Layer(gluon.HybridBlock):
    def __init__(self, units, heads):
        super().__init__()
        self.heads, self.scale = heads, (units // heads) ** -0.5
        with self.name_scope():
            dense = lambda inputs, outputs: nn.Dense(outputs, flatten=False, in_units=inputs)
            self.norm1, self.qkv, self.out = nn.LayerNorm(in_channels=units), dense(units, 3 * units), dense(units, units)
            self.norm2, self.up, self.down = nn.LayerNorm(in_channels=units), dense(units, 4 * units), dense(4 * units, units)

    def split(self, F, x):
        return F.reshape(F.transpose(F.reshape(x, (0, 0, self.heads, -1)), (0, 2, 1, 3)), (-3, 0, 0))

    def hybrid_forward(self, F, x, mask):
        q, k, v = (self.split(F, t) for t in F.split(self.qkv(self.norm1(x)), 3, axis=2))
        p = F.softmax(F.broadcast_add(F.batch_dot(q, k, transpose_b=True) * self.scale, mask))
        y = F.reshape(F.transpose(F.reshape(F.batch_dot(p, v), (-4, -1, self.heads, 0, 0)), (0, 2, 1, 3)), (0, 0, -3))
        x = x + self.out(y)
        u = self.up(self.norm2(x))
        return x + self.down(0.5 * u * (1 + F.tanh(0.7978845608028654 * (u + 0.044715 * u * u * u))))


class Transformer(gluon.HybridBlock):
    def __init__(self, words=50257, units=768, heads=12, layers=12, positions=1024):
        super().__init__()
        with self.name_scope():
            self.embed, self.places = nn.Embedding(words, units), nn.Embedding(positions, units)
            self.parts = []
            for i in range(layers):
                self.parts.append(Layer(units, heads))
                self.register_child(self.parts[i])
            self.norm = nn.LayerNorm(in_channels=units)
            self.head = nn.Dense(words, flatten=False, use_bias=False, in_units=units, params=self.embed.params)

    def hybrid_forward(self, F, x, at, mask):
        y = F.broadcast_add(self.embed(x), self.places(at))
        for part in self.parts:
            y = part(y, mask)
        return F.reshape(self.head(self.norm(y)), (-3, 0))


def network(name, batch=None):
    """A network whose values are set, the list of its inputs and the labels; `batch` texts or images where not as many as in samples/zoo."""
    more = []
    if name == "lstm_lm":
        texts = batch or 20
        net, shape, classes, count = Lstm(), (35, texts), 10000, 35 * texts
        more = [mx.nd.zeros((2, texts, 650)), mx.nd.zeros((2, texts, 650))]
    elif name == "transformer":
        net, shape, classes, count = Transformer(), (1, 512), 50257, 512
        i = mx.nd.arange(512)
        more = [i.reshape((1, 512)), (mx.nd.broadcast_greater(i.reshape((1, 1, -1)), i.reshape((1, -1, 1))) * -1e9)]
    else:
        features = mobilenet_v2() if name == "mobilenet_v2" else resnet(1, (2, 2, 2, 2)) if name == "resnet18" else resnet(4, (3, 4, 6, 3))
        head = nn.Dense(1000, in_units={"mobilenet_v2": 1280, "resnet18": 512}.get(name, 2048))
        net, shape, classes, count = sequence(features, head), (batch or BATCH, 3, 224, 224), 1000, batch or BATCH
    elements = 1
    for d in shape:
        elements *= d
    x, y = draws(elements, classes if more else 0, count, classes)
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True)  # static_shape would take half as much again
    return net, [mx.nd.array(x).reshape(shape)] + more, mx.nd.array(y)


def make(name):
    """One step of training, which gives the loss."""
    net, inputs, y = network(name)
    x, more = inputs[0], inputs[1:]
    criterion = gluon.loss.SoftmaxCrossEntropyLoss()
    criterion.hybridize(static_alloc=True)
    features, head = (net[0], net[1]) if name == "resnet50_head" else (None, None)
    if name == "resnet50_head":
        features.collect_params().setattr("grad_req", "null")
    trained = (head if name == "resnet50_head" else net).collect_params()
    if name == "transformer":
        trainer = gluon.Trainer(trained, "adam", {"learning_rate": 6e-4, "beta2": 0.95, "wd": 0.1}, kvstore=None)
    else:
        trainer = gluon.Trainer(trained, "sgd", {"learning_rate": 0.01, "momentum": 0.9}, kvstore=None)

    def step():
        with autograd.record():
            out = net(x, *more)
            if name == "lstm_lm":
                out, more[0], more[1] = out
            loss = criterion(out, y).mean()
        loss.backward()
        if name == "lstm_lm":
            more[0], more[1] = more[0].detach(), more[1].detach()
            gluon.utils.clip_global_norm([p.grad() for p in trained.values()], 5)
        trainer.step(1)
        value = loss.asscalar()
        mx.nd.waitall()
        return float(value)

    return step
