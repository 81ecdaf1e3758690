"""Training steps, or decoding, of a network of samples/zoo with PyTorch on a GPU: `gpu_torch.py MODEL eager|compile f32|tf32|bf16 COUNT BATCH`. Writes one
line of JSON: milliseconds, losses, the largest memory the library took of the GPU, its version."""
import json
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

import zoo_torch


class LlamaLayer(nn.Module):
    """RMSNorm, rotary positions, heads that share keys and values, SwiGLU, and a cache of `context` tokens."""

    def __init__(self, units, heads, kv_heads, hidden, context):
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, units // heads
        self.norm1, self.norm2 = nn.RMSNorm(units, eps=1e-5), nn.RMSNorm(units, eps=1e-5)
        self.q, self.out = nn.Linear(units, units, bias=False), nn.Linear(units, units, bias=False)
        self.kv = nn.Linear(units, 2 * kv_heads * self.size, bias=False)
        self.gate_up, self.down = nn.Linear(units, 2 * hidden, bias=False), nn.Linear(hidden, units, bias=False)
        self.register_buffer("keys", torch.zeros(1, kv_heads, context, self.size), persistent=False)
        self.register_buffer("values", torch.zeros(1, kv_heads, context, self.size), persistent=False)

    def forward(self, x, turn, pos):
        b, n, _ = x.shape
        y = self.norm1(x)
        q = self.q(y).view(b, n, self.heads, self.size).transpose(1, 2)
        k, v = self.kv(y).view(b, n, 2 * self.kv_heads, self.size).transpose(1, 2).chunk(2, 1)
        q, k = rotate(q, turn), rotate(k, turn)
        self.keys[:, :, pos:pos + n], self.values[:, :, pos:pos + n] = k, v
        y = F.scaled_dot_product_attention(q, self.keys[:, :, :pos + n], self.values[:, :, :pos + n], is_causal=n > 1, enable_gqa=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, turn):
    a, b = x.chunk(2, -1)
    c, s = turn
    return torch.cat((a * c - b * s, b * c + a * s), -1)


class Llama(nn.Module):
    def __init__(self, words=128256, units=2048, layers=16, heads=32, kv_heads=8, hidden=8192, context=8192, base=500000):
        super().__init__()
        self.embed, self.norm = nn.Embedding(words, units), nn.RMSNorm(units, eps=1e-5)
        self.parts = nn.ModuleList([LlamaLayer(units, heads, kv_heads, hidden, context) for _ in range(layers)])
        size = units // heads
        angle = torch.outer(torch.arange(context), base ** (-torch.arange(0, size, 2) / size))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids, pos):
        x, turn = self.embed(ids), (self.cos[pos:pos + ids.shape[1]], self.sin[pos:pos + ids.shape[1]])
        for part in self.parts:
            x = part(x, turn, pos)
        return self.norm(x[:, -1]) @ self.embed.weight.T


def timed(run):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    value = run()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3, value


def train(name, mode, precision, count, batch):
    net, x, y = zoo_torch.network({"gpt2": "transformer"}.get(name, name), batch)
    if name == "gpt2":
        x = torch.randint(50257, (batch, 1024))
        y = torch.randint(50257, (batch * 1024,))
    net, x, y = net.cuda(), x.cuda(), y.cuda()
    parameters = list(net.parameters())
    if name == "gpt2":
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    else:
        optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=True)

    def loss_of():
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            return F.cross_entropy(net(x), y)

    forward = torch.compile(loss_of) if mode == "compile" else loss_of

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = forward()
        loss.backward()
        if name == "lstm_lm":
            torch.nn.utils.clip_grad_norm_(parameters, 5)
        optimizer.step()
        return loss.item()

    ms, losses = zip(*[timed(step) for _ in range(count)])
    return {"ms": ms, "losses": losses}


def write(mode, precision, count, prefill):
    with torch.inference_mode():
        net = Llama().cuda().to(torch.bfloat16 if precision == "bf16" else torch.float32)
        run = torch.compile(net) if mode == "compile" else net
        ids = torch.randint(128256, (1, prefill)).cuda()
        first = [timed(lambda: run(ids, 0))[0] for _ in range(3)]
        one = [timed(lambda: run(ids[:, :1], prefill + i))[0] for i in range(count)]
    return {"prefill_ms": first, "decode_ms": one}


def main():
    name, mode, precision, count, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.manual_seed(0)
    facts = write(mode, precision, count, size) if name == "llama" else train(name, mode, precision, count, size)
    print(json.dumps({**facts, "peak_bytes": torch.cuda.max_memory_reserved(), "version": torch.__version__}))


if __name__ == "__main__":
    main()
