"""A chart as SVG: lines over the number of workers, on a logarithmic axis; values are percent."""
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 900, 460, 64, 40, 300, 56
COLOURS = ["#1b6ca8", "#c8553d", "#2f8f4e", "#7a4fa3", "#b8860b", "#444444", "#d0679d", "#208b8b"]


def scale(values, low, high):
    least, most = min(values), max(values)
    return lambda v: low + (high - low) * (v - least) / ((most - least) or 1)


def draw(title, lines, target=None, lowest=0):
    """Lines: [(name, [(workers, percent)], is_dashed)]. `target`: (name, percent), a line across."""
    counts = sorted({n for _, points, _ in lines for n, _ in points})
    logs = {n: n.bit_length() - 1 + (n / (1 << (n.bit_length() - 1)) - 1) for n in counts}
    across = scale([logs[n] for n in counts], LEFT, WIDTH - RIGHT)
    up = scale([lowest, 100], HEIGHT - BOTTOM, TOP)
    x = lambda n: across(logs[n])
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13" role="img" aria-label="%s">' % (WIDTH, HEIGHT, escape(title)),
           '<rect width="%d" height="%d" fill="#ffffff"/>' % (WIDTH, HEIGHT), '<text x="%d" y="24" font-size="15">%s</text>' % (LEFT, escape(title))]
    for percent in range(lowest, 101, 20 if lowest == 0 else 10):
        out.append('<path d="M%d %.1fH%d" stroke="#dddddd"/><text x="%d" y="%.1f" text-anchor="end">%d%%</text>' %
                   (LEFT, up(percent), WIDTH - RIGHT, LEFT - 8, up(percent) + 4, percent))
    for n in counts:
        out.append('<text x="%.1f" y="%d" text-anchor="middle">%d</text>' % (x(n), HEIGHT - BOTTOM + 20, n))
    out.append('<text x="%d" y="%d" text-anchor="middle">workers</text>' % ((LEFT + WIDTH - RIGHT) // 2, HEIGHT - 14))
    if target:
        out.append('<path d="M%d %.1fH%d" stroke="#888888" stroke-dasharray="2 4"/><text x="%d" y="%.1f" fill="#666666">%s</text>' %
                   (LEFT, up(target[1]), WIDTH - RIGHT, LEFT + 6, up(target[1]) + 16, escape(target[0])))
    # Names beside the ends of their lines, apart from each other.
    places, below = {}, TOP - 16
    for i in sorted(range(len(lines)), key=lambda i: up(lines[i][1][-1][1])):
        places[i] = below = max(up(lines[i][1][-1][1]), below + 16)
    shift = max([0] + [p - (HEIGHT - BOTTOM) for p in places.values()])
    for i, (name, points, is_dashed) in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        path = "L".join("%.1f %.1f" % (x(n), up(max(lowest, p))) for n, p in points)
        out.append('<path d="M%s" fill="none" stroke="%s" stroke-width="2"%s/>' % (path, colour, ' stroke-dasharray="6 4"' if is_dashed else ""))
        out += ['<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%s, %d workers: %.1f%%</title></circle>' %
                (x(n), up(max(lowest, p)), colour, escape(name), n, p) for n, p in points]
        out.append('<text x="%d" y="%.1f" fill="%s">%s</text>' % (WIDTH - RIGHT + 12, places[i] - shift + 4, colour, escape("%s: %.0f%%" % (name, points[-1][1]))))
    return "\n".join(out + ["</svg>"]) + "\n"
