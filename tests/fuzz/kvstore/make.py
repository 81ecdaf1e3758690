#!/usr/bin/env python3
"""Writes the seeds beside this file: one input for each kind of request and form, as tests/fuzz/fuzz_kvstore.c reads them."""
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
F32, KEY, USER = 1, 1 << 40, 2 << 40
PUSH, PULL, PULL_ROWS, REDUCE, DONE, VALUE, REFUSED = range(1, 8)
NONE, DENSE, TWO_BIT, ONE_BIT, BF16, TOP_K, SPARSE, IDS, TEXT = range(9)
BATCH, PAYLOAD, REPLY_PAYLOAD, ACK = range(1, 5)


def item(kind, key, form=NONE, payload=b'', elements=0, rows=0, row=0, round_=0, wants=0, apart=0, number=1):
    head = struct.pack('<IIQIiBBBBfqqqQ', kind, number, key, round_, 0, F32, form, wants, apart, 0.5, elements, rows, row, len(payload))
    assert len(head) == 64
    return head if apart else head + payload + b'\0' * (-len(payload) % 16)


def record(sender, kind, number, body):
    return struct.pack('<BBBH', sender, kind, number, len(body)) + body


def both(*items):
    """The same from ranks 1 and 2, and a push of this rank: a round."""
    body = b''.join(items)
    return record(1, BATCH, 0, body) + record(2, BATCH, 0, body) + record(0, 0, 0, b'') + record(0, 0, 1, b'') + record(0, 0, 2, b'')


SEEDS = {
    'dense': both(item(PUSH, KEY, DENSE, struct.pack('<6f', *range(6)), 6, wants=1)),
    'sparse': both(item(PUSH, KEY | 1, SPARSE, struct.pack('<2q6f', 1, 3, *range(6)), 12, 2, 3)),
    'two_bit': both(item(PUSH, KEY | 2, TWO_BIT, bytes(range(10)), 40)),
    'one_bit': both(item(PUSH, KEY | 2, ONE_BIT, bytes(range(5)), 40)),
    'bf16': both(item(PUSH, KEY | 2, BF16, bytes(80), 40)),
    'top_k': both(item(PUSH, KEY | 2, TOP_K, struct.pack('<3I3f', 0, 7, 39, 1, 2, 3), 40, 3)),
    'pulls': both(item(PULL, KEY), item(PULL, KEY | 2), item(PULL_ROWS, KEY | 1, IDS, struct.pack('<2q', 0, 3), rows=2)),
    'reduce': both(item(REDUCE, USER | 9, DENSE, struct.pack('<2f', 1, 2), 2, wants=1)),
    'reduce_sparse': both(item(REDUCE, USER | 8, SPARSE, struct.pack('<1q2f', 1, 2, 3), 4, 1, 2, wants=1)),
    'apart': record(1, BATCH, 0, item(PUSH, KEY | 2, DENSE, bytes(160), 40, apart=1, number=3)) + record(1, PAYLOAD, 3, bytes(160)),
    'replies': both(item(DONE, KEY), item(VALUE, KEY, DENSE, bytes(24), 6), item(REFUSED, KEY, TEXT, b'no', rows=2)),
    'acknowledged': record(1, ACK, 0, b'') + record(2, ACK, 0, b''),
}

for name, seed in SEEDS.items():
    with open(os.path.join(HERE, name), 'wb') as f:
        f.write(seed)
