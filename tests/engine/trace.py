#!/usr/bin/env python3
"""The traces that test_trace writes: trace.py TEST_TRACE

Each must be well formed by samples/trace.py, hold every operation once, and an arrow for each dependence, which are worked out here
from the versions, another way. Pictures of them hold what was traced. A trace that was spoilt must be refused, for the right reason."""
import copy
import json
import os
import re
import subprocess
import sys
import tempfile

SAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'samples')
SCRIPT = os.path.join(SAMPLES, 'trace.py')


def expect(condition, *words):
    if not condition:
        sys.exit(' '.join(map(str, words)))


def draw(path, *arguments):
    return subprocess.run([sys.executable, SCRIPT, path, *arguments], capture_output=True, text=True)


def dependences(spans):
    """Who makes a version follows who made the one before it, or, where that was read, those who read it."""
    made, readers, found = {}, {}, set()
    for s in spans.values():
        for u in s['args']['writes']:
            made[u] = s['args']['operation']
        for u in s['args']['reads']:
            readers.setdefault(u, set()).add(s['args']['operation'])
    for s in spans.values():
        me = s['args']['operation']
        found |= {(made[u], me) for u in s['args']['reads'] if u in made}
        for u in s['args']['writes']:
            name, version = u.rsplit('@', 1)
            before = '%s@%d' % (name, int(version) - 1)
            found |= {(r, me) for r in readers.get(before, ())} or ({(made[before], me)} if before in made else set())
    return found


def check(path, operations):
    got = draw(path)
    expect(got.returncode == 0, got.stderr)
    with open(path) as f:
        events = json.load(f)['traceEvents']
    spans = {e['args']['operation']: e for e in events if e['ph'] == 'X' and 'args' in e}
    expect(len(spans) == operations == len([e for e in events if e['ph'] == 'X' and 'args' in e]), path, 'has', len(spans), 'operations of', operations)
    expect(sum(e['cat'] == 'skipped' for e in spans.values()) == 1, path, 'has no skipped operation')
    plain = {e['name']: e for e in events if e['ph'] == 'X' and e['cat'] == 'span'}
    expect(set(plain) == {'inner \\ span\n', 'outer'}, 'spans', list(plain))
    tracks = {e['tid']: e['args']['name'] for e in events if e['ph'] == 'M' and e['name'] == 'thread_name'}
    expect(tracks[plain['outer']['tid']] == 'a "thread"' and 'main' in tracks.values(), 'tracks', tracks)
    at = {(e['tid'], e['ts']): e['args']['operation'] for e in spans.values()}
    ends = {}
    for e in events:
        if e['ph'] in 'sf':
            ends.setdefault(e['id'], {})[e['ph']] = at[e['tid'], e['ts']]
    arrows = {(x['s'], x['f']) for x in ends.values()}
    wanted = dependences(spans)
    expect(arrows == wanted, path, 'lacks', sorted(wanted - arrows)[:3], 'and has', sorted(arrows - wanted)[:3])
    return events


def spoil(folder, events, change, words):
    events = copy.deepcopy(events)
    change(events)
    path = os.path.join(folder, 'spoilt.json')
    with open(path, 'w') as f:
        json.dump({'traceEvents': events}, f)
    got = draw(path)
    expect(got.returncode == 1 and words in got.stderr, 'expected', words, 'got', got.returncode, got.stderr)


def first(events, phase):
    return next(e for e in events if e['ph'] == phase)


def early(events):
    arrow = first(events, 'f')
    span = next(e for e in events if e['ph'] == 'X' and (e['tid'], e['ts']) == (arrow['tid'], arrow['ts']))
    moved = -1000000
    for e in events:
        if e['ph'] in 'sf' and (e['tid'], e['ts']) == (span['tid'], span['ts']):
            e['ts'] = moved
    span['ts'] = moved


def main():
    with tempfile.TemporaryDirectory(prefix='mxcc-trace-') as folder:
        out = subprocess.run([sys.argv[1], folder], capture_output=True, text=True)
        expect(out.returncode == 0, out.stderr)
        counts = list(map(int, re.findall(r'(\d+) operations', out.stdout)))
        for i, n in enumerate(counts):
            path = os.path.join(folder, '%d.json' % i)
            events = check(path, n)
            picture = os.path.join(folder, 'picture.svg')
            for arguments, spans in ((('-o', picture), n + 2), (('--graph', '-o', picture), n)):
                got = draw(path, *arguments)
                expect(got.returncode == 0, got.stderr)
                with open(picture) as f:
                    text = f.read()
                boxes = len(re.findall('class="(?:span|operation)"', text))
                expect(boxes == spans and text.endswith('</svg>\n'), 'a picture with', boxes, 'boxes of', spans)
        spoil(folder, events, lambda e: e.remove(first(e, 's')), 'has one end only')
        spoil(folder, events, early, 'had ended')
        spoil(folder, events, lambda e: first(e, 'X').update(dur=-1), 'ends before it begins')
        spoil(folder, events, lambda e: e.append(dict(first(e, 'X'), ts=first(e, 'X')['ts'] - 1e3, dur=1e3 + first(e, 'X')['dur'] / 2 + 0.01)), 'overlap')
        print('%d traces, %d operations' % (len(counts), sum(counts)))


main()
