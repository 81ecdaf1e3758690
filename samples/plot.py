#!/usr/bin/env python3
"""Draws the curves of a training run: plot.py RUN/metrics.csv -o loss.svg

The loss (and any other column that is a mean) on a logarithmic scale as an SVG picture and as text; counts, which are percentages,
on the right-hand axis. Only Python's standard library."""
import argparse
import csv
import math
import os
import shutil
import sys

COLORS = ['#0b6bcb', '#d1495b', '#2a9d5c', '#8e5bbf', '#c98a00', '#555555']


def is_percent(name):
    return any(word in name for word in ('accuracy', 'correct'))


def scale(values, log):
    lo, hi = min(values), max(values)
    if log:
        lo, hi = math.log10(lo), math.log10(hi)
    if hi - lo < 1e-12:
        hi = lo + 1
    return lambda v: ((math.log10(v) if log else v) - lo) / (hi - lo)


def svg(xs, series, path):
    width, height, left, right, top, bottom = 760, 420, 60, 60, 30, 46
    w, h = width - left - right, height - top - bottom
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">' % (width, height),
           '<rect width="%d" height="%d" fill="white"/>' % (width, height)]
    x_of = scale(xs, False)
    groups = [[s for s in series if is_percent(s[0]) == p] for p in (False, True)]
    for right_side, group in enumerate(groups):
        if not group:
            continue
        every = [v for _, vs in group for v in vs]
        log = not right_side and min(every) > 0 and max(every) / min(every) > 20
        y_of = scale(every, log)
        lo, hi = (math.log10(min(every)), math.log10(max(every))) if log else (min(every), max(every))
        for k in range(5):
            at = lo + (hi - lo) * k / 4
            y = top + h * (1 - k / 4)
            if not right_side:
                out.append('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#e4e4e4"/>' % (left, left + w, y, y))
            out.append('<text x="%d" y="%.1f" text-anchor="%s" fill="#444">%.3g%s</text>' %
                       (left + w + 6 if right_side else left - 6, y + 4, 'start' if right_side else 'end', 10 ** at if log else at, '%' if right_side else ''))
        for name, values in group:
            color = COLORS[[s[0] for s in series].index(name) % len(COLORS)]
            points = ' '.join('%.1f,%.1f' % (left + w * x_of(x), top + h * (1 - y_of(v))) for x, v in zip(xs, values))
            out.append('<polyline fill="none" stroke="%s" stroke-width="2"%s points="%s"/>' % (color, ' stroke-dasharray="5 3"' if right_side else '', points))
    for i, (name, _) in enumerate(series):
        x = left + 10 + 150 * i
        out.append('<line x1="%d" x2="%d" y1="16" y2="16" stroke="%s" stroke-width="3"/><text x="%d" y="20">%s</text>' % (x, x + 20, COLORS[i % len(COLORS)], x + 26, name))
    for k in range(6):
        x = xs[0] + (xs[-1] - xs[0]) * k / 5
        out.append('<text x="%.1f" y="%d" text-anchor="middle" fill="#444">%g</text>' % (left + w * k / 5, height - 24, round(x, 1)))
    out.append('<text x="%d" y="%d" text-anchor="middle">epoch</text></svg>' % (left + w / 2, height - 6))
    with open(path, 'w', encoding='utf-8') as f:
        f.write('\n'.join(out) + '\n')


def text(xs, name, values):
    rows, columns = 12, max(20, min(72, shutil.get_terminal_size().columns - 14))
    log = min(values) > 0 and max(values) / min(values) > 20
    y_of = scale(values, log)
    grid = [[' '] * columns for _ in range(rows)]
    for c in range(columns):
        at = c / (columns - 1) * (len(values) - 1)
        i = min(int(at), len(values) - 2) if len(values) > 1 else 0
        v = values[i] + (values[min(i + 1, len(values) - 1)] - values[i]) * (at - i)
        grid[rows - 1 - round(y_of(v) * (rows - 1))][c] = '*'
    lo, hi = min(values), max(values)
    print('    %s%s' % (name, ', logarithmic' if log else ''))
    for r, row in enumerate(grid):
        share = 1 - r / (rows - 1)
        value = 10 ** (math.log10(lo) + (math.log10(hi) - math.log10(lo)) * share) if log else lo + (hi - lo) * share
        print('%9s |%s' % ('%.3g' % value if r % 3 == 0 or r == rows - 1 else '', ''.join(row).rstrip()))
    print('%9s +%s\n%9s  %-*s%g epochs' % ('', '-' * columns, '', columns - 8, '%g' % xs[0], xs[-1]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('metrics')
    p.add_argument('-o', default='loss.svg')
    o = p.parse_args()
    with open(o.metrics, newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    if not rows:
        sys.exit('%s has no rows yet' % o.metrics)
    names = [n for n in rows[0] if n not in ('epoch', 'step', 'seconds')]
    xs = [float(r['epoch']) for r in rows]
    series = [(n, [float(r[n]) for r in rows]) for n in names]
    svg(xs, series, o.o)
    for name, values in series[:1]:
        text(xs, name, values)
    print('    a picture: %s' % os.path.relpath(o.o))


if __name__ == '__main__':
    main()
