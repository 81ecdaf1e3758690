#!/usr/bin/env python3
"""Draws a trace of libmxrt (mxrt/trace.h, or --trace of a program): trace.py TRACE.json -o timeline.svg

A track for each thread, a box for each span, an arrow from an operation to one that had to wait for it. `--graph` draws the
operations and the versions of variables that they read and write instead, `--from` and `--to` (milliseconds) choose a part.
Only Python's standard library. A trace that is not well formed is an error: an arrow without its other end, spans of one thread
that overlap, an operation that began before one that it depends on had ended."""
import argparse
import json
import sys
from html import escape

COLORS = ['#9bb8d8', '#e8b98a', '#a9cf9f', '#d7a9c4', '#c9c58a', '#b3b0dc', '#93cfcb', '#dba3a3']


class Malformed(Exception):
    pass


def expect(condition, words, *values):
    if not condition:
        raise Malformed(words % values)


class Span:
    def __init__(self, event):
        self.name, self.track, self.kind = event['name'], event['tid'], event['cat']
        self.begin, self.end = event['ts'], event['ts'] + event['dur']
        args = event.get('args', {})
        self.operation, self.reads, self.writes = args.get('operation'), args.get('reads', []), args.get('writes', [])


class Trace:
    """Spans, names of tracks, and arrows as pairs of spans."""

    def __init__(self, document):
        self.tracks, self.spans, self.arrows, halves = {}, [], [], {}
        expect(isinstance(document.get('traceEvents'), list), 'there is no list `traceEvents`')
        for event in document['traceEvents']:
            if event['ph'] == 'M' and event['name'] == 'thread_name':
                self.tracks[event['tid']] = event['args']['name']
            elif event['ph'] == 'X':
                expect(event['dur'] >= 0, 'span `%s` ends before it begins', event['name'])
                self.spans.append(Span(event))
            elif event['ph'] in 'sf':
                half = halves.setdefault(event['id'], {})
                expect(event['ph'] not in half, 'arrow %s has two of one end', event['id'])
                half[event['ph']] = event
        at = {}
        for span in self.spans:
            expect(span.track in self.tracks, 'track %s has no name', span.track)
            if span.operation is not None:
                at[span.track, round(span.begin, 3)] = span
        for number, half in halves.items():
            expect(len(half) == 2, 'arrow %s has one end only', number)
            ends = [at.get((half[p]['tid'], round(half[p]['ts'], 3))) for p in 'sf']
            expect(all(ends), 'arrow %s has an end where no operation begins', number)
            self.arrows.append(tuple(ends))
        self.check_tracks()
        for before, after in self.arrows:
            expect(before.end <= after.begin + 0.002 or after.kind == 'skipped', 'operation `%s` began before `%s`, which it follows, had ended',
                   after.name, before.name)

    def check_tracks(self):
        for track in self.tracks:
            open_spans = []
            for span in sorted((s for s in self.spans if s.track == track), key=lambda s: (s.begin, -s.end)):
                while open_spans and open_spans[-1].end <= span.begin + 0.002:
                    open_spans.pop()
                expect(not open_spans or span.end <= open_spans[-1].end + 0.002, 'on track `%s`, `%s` and `%s` overlap', self.tracks[track],
                       open_spans[-1].name if open_spans else '', span.name)
                open_spans.append(span)

    def part(self, begin, end):
        self.spans = [s for s in self.spans if s.end >= begin and s.begin <= end]
        kept = set(map(id, self.spans))
        self.arrows = [a for a in self.arrows if id(a[0]) in kept and id(a[1]) in kept]


def label(use):
    """`name#number@version`, shorter: the number matters where names are equal."""
    name, version = use.rsplit('@', 1)
    name, number = name.rsplit('#', 1)
    return (name or 'variable ' + number), version


def head(width, height, title):
    return ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11" role="img" aria-label="%s">' %
            (width, height, escape(title, True)),
            '<defs><marker id="tip" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
            '<path d="M0 0L6 3L0 6z" fill="#777"/></marker></defs>',
            '<rect width="%d" height="%d" fill="white"/>' % (width, height)]


def colors_of(names):
    order = list(dict.fromkeys(names))
    return {name: COLORS[i % len(COLORS)] for i, name in enumerate(order)}


def timeline(trace):
    """Nested spans stand lower and smaller in their track."""
    spans = sorted(trace.spans, key=lambda s: (s.begin, -s.end))
    tracks = [t for t in sorted(trace.tracks) if any(s.track == t for s in spans)]
    begin, end = min(s.begin for s in spans), max(s.end for s in spans)
    left, width, row = 90, 1000, 54
    out = head(left + width + 20, row * len(tracks) + 40, 'timeline')
    x_of = lambda t: left + width * (t - begin) / max(end - begin, 1e-9)
    y_of = {t: 12 + row * i for i, t in enumerate(tracks)}
    colors = colors_of(s.name for s in spans)
    for t in tracks:
        out.append('<text x="8" y="%.1f">%s</text><path d="M%d %.1fh%d" stroke="#ddd"/>' %
                   (y_of[t] + 22, escape(trace.tracks[t]), left, y_of[t] + 40, width))
    for s in spans:
        x, w = x_of(s.begin), max(x_of(s.end) - x_of(s.begin), 0.6)
        depth = sum(1 for o in spans if o.track == s.track and o is not s and o.begin <= s.begin and s.end <= o.end and (o.end - o.begin) > (s.end - s.begin))
        y, h = y_of[s.track] + 4 + 8 * min(depth, 3), 32 - 8 * min(depth, 3)
        title = '%s, %.3f ms to %.3f ms' % (s.name, (s.begin - begin) / 1000, (s.end - begin) / 1000)
        if s.writes:
            title += ', writes ' + ', '.join('%s version %s' % label(u) for u in s.writes)
        out.append('<rect class="span" x="%.2f" y="%.1f" width="%.2f" height="%.1f" fill="%s" stroke="#555" stroke-width="0.4"><title>%s</title></rect>' %
                   (x, y, w, h, colors[s.name], escape(title)))
        words = s.name + ''.join(' ' + label(u)[0] for u in s.writes[:1] if s.name != label(u)[0])
        for text in (words, s.name):
            if w > 6.2 * len(text) + 4:
                out.append('<text x="%.2f" y="%.1f">%s</text>' % (x + 3, y + h / 2 + 4, escape(text)))
                break
    for before, after in trace.arrows:
        x0, x1 = x_of(before.end), x_of(after.begin)
        y0, y1 = y_of[before.track] + 36, y_of[after.track] + 4
        if before.track == after.track:
            y0 = y1 = y_of[before.track] + 36
            bend = 'Q%.2f %.1f ' % ((x0 + x1) / 2, y0 + 14)
        else:
            y0, y1 = (y_of[before.track] + 36, y_of[after.track] + 4) if y_of[before.track] < y_of[after.track] else \
                (y_of[before.track] + 4, y_of[after.track] + 36)
            bend = 'C%.2f %.1f %.2f %.1f ' % (x0 + 4, (y0 + y1) / 2, x1 - 4, (y0 + y1) / 2)
        out.append('<path class="arrow" d="M%.2f %.1f%s%.2f %.1f" fill="none" stroke="#777" stroke-width="0.7" marker-end="url(#tip)"/>' %
                   (x0, y0, bend, x1, y1))
    out.append('<text x="%d" y="%d">0</text><text x="%d" y="%d" text-anchor="end">%.3f ms</text>' %
               (left, row * len(tracks) + 30, left + width, row * len(tracks) + 30, (end - begin) / 1000))
    x, y = left + 40, row * len(tracks) + 30
    for name, color in colors.items(): # a legend, as far as there is room
        wide = 24 + 6.4 * len(name)
        if x + wide > left + width - 80:
            break
        out.append('<rect x="%.1f" y="%d" width="10" height="10" fill="%s" stroke="#555" stroke-width="0.4"/><text x="%.1f" y="%d">%s</text>' %
                   (x, y - 9, color, x + 14, y, escape(name)))
        x += wide
    return out + ['</svg>']


class Node:
    def __init__(self, text, is_version):
        self.text, self.is_version, self.before, self.layer, self.y = text, is_version, [], 0, 0.0


def graph(trace):
    """Operations and versions, in layers by the longest way to them (Sugiyama); within one, near the mean of their neighbours."""
    operations = sorted((s for s in trace.spans if s.operation is not None), key=lambda s: s.operation)
    expect(operations, 'there are no operations in this part')
    nodes, versions, readers = [], {}, {}

    def version_of(use):
        if use not in versions:
            versions[use] = Node('%s @%s' % label(use), True)
            nodes.append(versions[use])
        return versions[use]

    for s in operations:
        node = Node(s.name, False)
        for use in s.reads:
            node.before.append((version_of(use), 'reads'))
            readers.setdefault(use, []).append(node)
        for use in s.writes:
            name, number = use.rsplit('@', 1)
            replaced = '%s@%d' % (name, int(number) - 1)
            if replaced in versions:
                node.before.append((versions[replaced], 'replaces'))
            node.before += [(r, 'after') for r in readers.get(replaced, []) if r is not node]
        nodes.append(node)
        for use in s.writes:
            made = version_of(use)
            made.before.append((node, 'writes'))
    order = {id(n): i for i, n in enumerate(nodes)}
    for node in sorted(nodes, key=lambda n: order[id(n)]): # versions that nobody writes come before who reads them
        node.layer = max((b.layer + 1 for b, _ in node.before), default=0)
    layers = [[n for n in nodes if n.layer == i] for i in range(max(n.layer for n in nodes) + 1)]
    for layer in layers:
        for i, n in enumerate(layer):
            n.y = i - (len(layer) - 1) / 2
    after = {id(n): [m for m in nodes if any(b is n for b, _ in m.before)] for n in nodes}
    for sweep in range(8):
        for layer in (layers if sweep % 2 == 0 else reversed(layers)):
            mean = lambda n: (lambda near: sum(m.y for m in near) / len(near) if near else n.y)([b for b, _ in n.before] if sweep % 2 == 0 else after[id(n)])
            layer.sort(key=mean)
            for i, n in enumerate(layer):
                n.y = i - (len(layer) - 1) / 2
    wide, high, tall = 86, 30, max(map(len, layers))
    out = head(wide * len(layers) + 20, high * tall + 30, 'operations and versions')
    colors = colors_of(s.name for s in operations)
    place = lambda n: (10 + wide * n.layer, 15 + high * (n.y + (tall - 1) / 2) + high / 2)
    dashes = {'reads': '', 'writes': '', 'replaces': ' stroke-dasharray="1 3"', 'after': ' stroke-dasharray="4 3"'}
    for node in nodes:
        x1, y1 = place(node)
        for b, kind in node.before:
            x0, y0 = place(b)
            out.append('<path class="%s" d="M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f" fill="none" stroke="#777" stroke-width="0.8"%s marker-end="url(#tip)"/>' %
                       (kind, x0 + 62, y0, x0 + 80, y0, x1 - 16, y1, x1, y1, dashes[kind]))
    for node in nodes:
        x, y = place(node)
        out.append('<rect class="%s" x="%.1f" y="%.1f" width="62" height="20" rx="%d" fill="%s" stroke="#555" stroke-width="0.5"/><text x="%.1f" y="%.1f" text-anchor="middle">%s</text>' %
                   ('version' if node.is_version else 'operation', x, y - 10, 10 if node.is_version else 2,
                    'white' if node.is_version else colors[node.text], x + 31, y + 4, escape(node.text)))
    return out + ['</svg>']


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('trace')
    parser.add_argument('-o', '--output', help='the picture; without it the trace is only checked')
    parser.add_argument('--graph', action='store_true', help='operations and versions instead of the timeline')
    parser.add_argument('--from', dest='begin', type=float, default=float('-inf'), metavar='MS')
    parser.add_argument('--to', dest='end', type=float, default=float('inf'), metavar='MS')
    options = parser.parse_args()
    try:
        with open(options.trace) as f:
            trace = Trace(json.load(f))
        trace.part(options.begin * 1000, options.end * 1000)
        expect(trace.spans, 'there are no spans in this part')
        if options.output:
            lines = (graph if options.graph else timeline)(trace)
            with open(options.output, 'w') as f:
                f.write('\n'.join(lines) + '\n')
        print('%d spans on %d tracks, %d arrows' % (len(trace.spans), len({s.track for s in trace.spans}), len(trace.arrows)))
    except (OSError, ValueError, KeyError, Malformed) as why:
        sys.exit('%s: %s' % (options.trace, why))


if __name__ == '__main__':
    main()
