/* CSV into numbers. One pass counts, one converts; a first line with a cell that is no number is a header. */
#include "mxrt/data.h"

#include <stdlib.h>
#include <string.h>

struct cursor {
    const char *at, *end, *line_start;
    int64_t line;
    char separator;
};

/* A cell's text without quotes and outer spaces; moves behind its separator. *last: the line ends here. */
static const char *cell(struct cursor *c, size_t *length, bool *last, bool *bad_quote) {
    const char *p = c->at, *start, *stop;
    *bad_quote = false;
    while (p < c->end && (*p == ' ' || (*p == '\t' && c->separator != '\t')))
        p++;
    if (p < c->end && *p == '"') {
        start = ++p;
        while (p < c->end && *p != '"' && *p != '\n')
            p++;
        stop = p;
        if (p < c->end && *p == '"')
            p++;
        else
            *bad_quote = true;
        while (p < c->end && *p != c->separator && *p != '\n')
            p++;
    } else {
        start = p;
        while (p < c->end && *p != c->separator && *p != '\n')
            p++;
        stop = p;
        while (stop > start && (stop[-1] == ' ' || stop[-1] == '\r' || stop[-1] == '\t'))
            stop--;
    }
    *last = p >= c->end || *p == '\n';
    c->at = p < c->end ? p + 1 : p;
    *length = (size_t)(stop - start);
    return start;
}

/* strtod needs an end that is no digit: every cell ends in a separator, a newline or the text's 0. */
static bool number(const char *s, size_t n, float *value) {
    if (n == 4 && memcmp(s, "true", 4) == 0) {
        *value = 1;
        return true;
    }
    if (n == 5 && memcmp(s, "false", 5) == 0) {
        *value = 0;
        return true;
    }
    /* Short integers, by far the most common, without strtod. */
    if (n > 0 && n <= 7) {
        int v = 0;
        size_t i = 0;
        while (i < n && s[i] >= '0' && s[i] <= '9')
            v = v * 10 + (s[i++] - '0');
        if (i == n) {
            *value = (float)v;
            return true;
        }
    }
    char *end;
    *value = strtof(s, &end);
    return n > 0 && end == s + n;
}

static bool blank(const struct cursor *c) {
    const char *p = c->at;
    while (p < c->end && (*p == ' ' || *p == '\r' || *p == '\t'))
        p++;
    return p >= c->end || *p == '\n';
}

static void skip_line(struct cursor *c) {
    const char *p = memchr(c->at, '\n', (size_t)(c->end - c->at));
    c->at = p ? p + 1 : c->end;
}

static mx_status fail(struct mxrt_csv *csv, struct mxrt_why *why, const char *path, int64_t line, int64_t column,
                      const char *what) {
    mxrt_csv_free(csv);
    return mxrt_fail(why, MX_ERROR_FORMAT, "%s:%lld: column %lld: %s", path, (long long)line, (long long)column, what);
}

mx_status mxrt_csv_parse(struct mxrt_csv *csv, const char *path, const char *text, size_t bytes, struct mxrt_why *why) {
    memset(csv, 0, sizeof *csv);
    struct cursor c = {text, text + bytes, text, 1, ','};
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        c.at += 3;
    while (c.at < c.end && blank(&c)) {
        skip_line(&c);
        c.line++;
    }
    if (c.at >= c.end)
        return mxrt_fail(why, MX_ERROR_FORMAT, "%s: no lines with data", path);
    const char *first = c.at;
    size_t length = (size_t)(c.end - c.at);
    const char *newline = memchr(first, '\n', length);
    if (newline)
        length = (size_t)(newline - first);
    c.separator = memchr(first, ',', length)    ? ','
                  : memchr(first, ';', length)  ? ';'
                  : memchr(first, '\t', length) ? '\t'
                                                : ',';

    /* Width, and whether the first line is a header. */
    bool header = false, last = false, bad;
    struct cursor probe = c;
    while (!last) {
        float v;
        size_t n;
        const char *s = cell(&probe, &n, &last, &bad);
        header |= !number(s, n, &v);
        csv->columns++;
    }
    if (header) {
        csv->names = calloc((size_t)csv->columns, sizeof *csv->names);
        last = false;
        for (int64_t k = 0; csv->names && !last; k++) {
            size_t n;
            const char *s = cell(&c, &n, &last, &bad);
            if ((csv->names[k] = malloc(n + 1))) {
                memcpy(csv->names[k], s, n);
                csv->names[k][n] = 0;
            }
        }
        c.line++;
    }
    int64_t lines = 1;
    for (const char *p = c.at; (p = memchr(p, '\n', (size_t)(c.end - p))); p++)
        lines++;
    /* A cell takes a byte at least, so short lines under a long first one do not ask for more. */
    int64_t cells;
    if (__builtin_mul_overflow(lines, csv->columns, &cells) || cells > (int64_t)bytes + csv->columns)
        cells = (int64_t)bytes + csv->columns;
    csv->cells = malloc((size_t)cells * sizeof(float));
    csv->lines = malloc((size_t)lines * sizeof *csv->lines);
    if (!csv->cells || !csv->lines) {
        mxrt_csv_free(csv);
        return mxrt_fail(why, MX_ERROR_MEMORY, "%s: no memory for %lld numbers", path, (long long)cells);
    }
    for (; c.at < c.end; c.line++) {
        if (blank(&c)) {
            skip_line(&c);
            continue;
        }
        last = false;
        for (int64_t k = 0; k < csv->columns; k++) {
            size_t n;
            if (last) {
                char what[160];
                (void)snprintf(what, sizeof what, "missing; the line has %lld columns, %lld were expected",
                               (long long)k, (long long)csv->columns);
                return fail(csv, why, path, c.line, k + 1, what);
            }
            const char *s = cell(&c, &n, &last, &bad);
            if (bad)
                return fail(csv, why, path, c.line, k + 1, "a quote is not closed");
            if (!number(s, n, &csv->cells[csv->rows * csv->columns + k])) {
                char what[160];
                (void)snprintf(what, sizeof what,
                               n ? "expected a number, got \"%.*s\"" : "expected a number, got nothing",
                               n > 40 ? 40 : (int)n, s);
                return fail(csv, why, path, c.line, k + 1, what);
            }
        }
        if (!last) {
            char what[160];
            (void)snprintf(what, sizeof what, "one too many; %lld columns were expected", (long long)csv->columns);
            return fail(csv, why, path, c.line, csv->columns + 1, what);
        }
        csv->lines[csv->rows++] = c.line;
    }
    if (csv->rows == 0) {
        mxrt_csv_free(csv);
        return mxrt_fail(why, MX_ERROR_FORMAT, "%s: only a header line", path);
    }
    return MX_OK;
}

void mxrt_csv_free(struct mxrt_csv *csv) {
    for (int64_t k = 0; csv->names && k < csv->columns; k++)
        free(csv->names[k]);
    free(csv->names);
    free(csv->cells);
    free(csv->lines);
    memset(csv, 0, sizeof *csv);
}
