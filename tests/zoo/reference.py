"""Networks of samples/zoo written a second time, from their papers, with numpy in f64: what the compiled ones are held to. Each is a
function of the parameters, {name: array} with the names of the model, and of its inputs."""
import numpy as np


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(scores, y):
    """The mean over all tokens."""
    top = scores.max(-1, keepdims=True)
    logs = scores - top - np.log(np.exp(scores - top).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, y[..., None], -1).mean()


def layer_norm(p, name, x, eps=1e-5):
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + eps) * p[name + '.gamma'] + p[name + '.beta']


def rms_norm(p, name, x, eps=1e-5):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * p[name + '.gamma']


def dense(p, name, x):
    y = x @ p[name + '.weight'].T
    return y + p[name + '.bias'] if name + '.bias' in p else y


def erf(x):
    """By its series, which is exact enough below 6, where it has become 1."""
    x = np.clip(x, -6, 6)
    term, total = x, x
    for n in range(1, 200):
        term = -term * x * x / n
        total = total + term / (2 * n + 1)
    return total * 2 / np.sqrt(np.pi)


def attend(q, k, v, heads, kv_heads, causal=False, base=None, window=0):
    """[N, positions, heads * units] each."""
    def split(x, count):
        return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(0, 2, 1, 3)
    q, k, v = split(q, heads), split(k, kv_heads), split(v, kv_heads)
    if base:
        q, k = rotated(q, base), rotated(k, base)
    k, v = (np.repeat(x, heads // kv_heads, 1) for x in (k, v))
    s = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    if causal:
        i, j = np.arange(q.shape[2])[:, None], np.arange(k.shape[2])[None]
        s = np.where((j <= i) & ((j > i - window) if window else True), s, -np.inf)
    y = softmax(s) @ v
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1)


def rotated(x, base):
    """Pairs (d, d + D / 2) turned by position * base^(-2 d / D), as complex numbers."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[2])[:, None] * base ** (-np.arange(half) / half)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag], -1)


# ---- decoders ----------------------------------------------------------------------------------------------------------------

def gpt2_scores(p, ids, heads):
    x = p['net.embed.weight'][ids] + p['net.places.weight'][:ids.shape[1]]
    i = 0
    while 'net.parts.%d.norm1.gamma' % i in p:
        name = 'net.parts.%d.' % i
        y = layer_norm(p, name + 'norm1', x)
        y = attend(*(dense(p, name + 'attend.' + w, y) for w in 'qkv'), heads, heads, causal=True)
        x = x + dense(p, name + 'attend.out', y)
        y = dense(p, name + 'feed.up', layer_norm(p, name + 'norm2', x))
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y ** 3)))
        x = x + dense(p, name + 'feed.down', y)
        i += 1
    return layer_norm(p, 'net.norm', x) @ p['net.embed.weight'].T


def llama_scores(p, ids, heads, kv_heads, base, window=0):
    x = p['net.embed.weight'][ids]
    i = 0
    while 'net.parts.%d.norm1.gamma' % i in p:
        name = 'net.parts.%d.' % i
        y = rms_norm(p, name + 'norm1', x)
        y = attend(*(dense(p, name + 'attend.' + w, y) for w in 'qkv'), heads, kv_heads, True, base, window)
        x = x + dense(p, name + 'attend.out', y)
        y = rms_norm(p, name + 'norm2', x)
        gate = dense(p, name + 'feed.gate', y)
        x = x + dense(p, name + 'feed.down', gate / (1 + np.exp(-gate)) * dense(p, name + 'feed.up', y))
        i += 1
    return rms_norm(p, 'net.norm', x) @ p['net.embed.weight'].T


# ---- the UNet ----------------------------------------------------------------------------------------------------------------

def silu(x):
    return x / (1 + np.exp(-x))


def group_norm(p, name, x, groups, eps=1e-5):
    z = x.reshape(x.shape[0], groups, -1)
    d = z - z.mean(-1, keepdims=True)
    z = (d / np.sqrt((d * d).mean(-1, keepdims=True) + eps)).reshape(x.shape)
    return z * p[name + '.gamma'][:, None, None] + p[name + '.beta'][:, None, None]


def conv(p, name, x, stride=1):
    w = p[name + '.weight']
    pad = w.shape[-1] // 2
    z = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = ((n + 2 * pad - w.shape[-1]) // stride + 1 for n in x.shape[2:])
    y = 0
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            part = z[:, :, i:i + (rows - 1) * stride + 1:stride, j:j + (columns - 1) * stride + 1:stride]
            y = y + np.einsum('nchw,oc->nohw', part, w[:, :, i, j])
    return y + p[name + '.bias'][:, None, None]


def residual(p, name, x, t, groups):
    y = conv(p, name + 'conv1', silu(group_norm(p, name + 'norm1', x, groups)))
    y = y + dense(p, name + 'shift', silu(t))[:, :, None, None]
    y = conv(p, name + 'conv2', silu(group_norm(p, name + 'norm2', y, groups)))
    return y + (conv(p, name + 'project', x) if name + 'project.weight' in p else x)


def spatial(p, name, x, text, groups, heads):
    n, c, h, w = x.shape
    y = conv(p, name + 'enter', group_norm(p, name + 'norm', x, groups, 1e-6)).reshape(n, c, h * w).swapaxes(1, 2)
    for norm, part, source in (('norm1', 'own', None), ('norm2', 'cross', text)):
        z = layer_norm(p, name + norm, y)
        s = z if source is None else source
        q, k, v = (dense(p, name + part + '.' + k, v) for k, v in (('q', z), ('k', s), ('v', s)))
        y = y + dense(p, name + part + '.out', attend(q, k, v, heads, heads))
    value, gate = np.split(dense(p, name + 'up', layer_norm(p, name + 'norm3', y)), 2, -1)
    y = y + dense(p, name + 'down', value * 0.5 * gate * (1 + erf(gate / np.sqrt(2))))
    return x + conv(p, name + 'leave', y.swapaxes(1, 2).reshape(n, c, h, w))


def unet(p, x, t, text, groups, heads):
    def part(name, y):
        y = residual(p, name + '.residual.', y, at, groups)
        return spatial(p, name + '.spatial.', y, text, groups, heads) if name + '.spatial.norm.gamma' in p else y

    units = p['net.first.weight'].shape[0]
    angle = t[:, None] * 10000.0 ** (-np.arange(units // 2) / (units // 2))
    at = dense(p, 'net.time2', silu(dense(p, 'net.time1', np.concatenate([np.cos(angle), np.sin(angle)], 1))))
    levels = len({k.split('.')[2] for k in p if k.startswith('net.down.')})
    depth = len({k.split('.')[3] for k in p if k.startswith('net.down.0.')})
    y = conv(p, 'net.first', x)
    kept = [y]
    for level in range(levels):
        for k in range(depth):
            y = part('net.down.%d.%d' % (level, k), y)
            kept.append(y)
        if level < levels - 1:
            y = conv(p, 'net.shrink.%d' % level, y, stride=2)
            kept.append(y)
    y = part('net.middle2', part('net.middle1', y))
    for level in reversed(range(levels)):
        for k in range(depth + 1):
            y = part('net.up.%d.%d' % (level, k), np.concatenate([y, kept.pop()], 1))
        if level:
            y = conv(p, 'net.grow.%d' % (level - 1), y.repeat(2, 2).repeat(2, 3))
    return conv(p, 'net.final', silu(group_norm(p, 'net.norm', y, groups)))


def unet_loss(p, x, text, t, noise, groups, heads):
    left = np.cumprod(1 - np.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000) ** 2)[t][:, None, None, None]
    found = unet(p, np.sqrt(left) * x + np.sqrt(1 - left) * noise, t, text, groups, heads)
    return ((found - noise) ** 2).mean()
