/* `mxcc plan lifetimes.csv [--capacity BYTES] [--seconds S] [-o offsets.csv]`: the memory planner alone. Reads a table of
 * lifetimes (header id,lower,upper,size, in any order, other columns kept), places the items, checks that and writes the
 * table with a column `offset`. BYTES may end in K, M or G; S stands for a number of steps, the same on every machine, after which
 * the best placement found is given.
 */
#include "driver/plan_command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/diag.h"
#include "base/text.h"
#include "driver/driver.h"
#include "passes/memplan/placement.h"

#define MAX_ITEMS       1000000
#define DEFAULT_SECONDS 60

enum column { ID, LOWER, UPPER, SIZE, COLUMNS };
static const char *const column_names[COLUMNS] = {"id", "lower", "upper", "size"};

struct table {
    struct diag *diag;
    const struct source *source;
    int fields;      /* a row's */
    int at[COLUMNS]; /* field of a column */
    int64_t total;   /* of sizes; not beyond the first error about it */
    VEC(struct placement_item) items;
    VEC(struct span) rows; /* text of a row without its end of line */
};

static struct span span_at(const struct table *t, size_t begin, size_t end) {
    return (struct span){t->source, (uint32_t)begin, (uint32_t)end};
}

/* The next field of a line: [*begin, *end) without blanks around it. False at the end of the line. */
static bool next_field(const char *text, size_t *at, size_t line_end, size_t *begin, size_t *end) {
    if (*at > line_end)
        return false;
    size_t b = *at, e = b;
    while (e < line_end && text[e] != ',')
        e++;
    *at = e + 1;
    while (b < e && (text[b] == ' ' || text[b] == '\t'))
        b++;
    while (e > b && (text[e - 1] == ' ' || text[e - 1] == '\t'))
        e--;
    *begin = b;
    *end = e;
    return true;
}

enum number { NUMBER, NO_NUMBER, TOO_LARGE };

static enum number parse_int(const char *text, size_t n, int64_t *value) {
    size_t i = 0;
    bool negative = n > 0 && text[0] == '-';
    uint64_t v = 0;
    if (negative || (n > 0 && text[0] == '+'))
        i++;
    if (i == n)
        return NO_NUMBER;
    bool large = false;
    for (; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return NO_NUMBER;
        large |= v > (uint64_t)INT64_MAX / 16;
        v = large ? 0 : v * 10 + (uint64_t)(text[i] - '0');
    }
    *value = negative ? -(int64_t)v : (int64_t)v;
    return large ? TOO_LARGE : NUMBER;
}

static void read_header(struct table *t, size_t begin, size_t line_end) {
    const char *text = t->source->text;
    size_t at = begin, b, e;
    for (int c = 0; c < COLUMNS; c++)
        t->at[c] = -1;
    while (next_field(text, &at, line_end, &b, &e)) {
        for (int c = 0; c < COLUMNS; c++) {
            if (e - b != strlen(column_names[c]) || memcmp(text + b, column_names[c], e - b) != 0)
                continue;
            if (t->at[c] >= 0)
                diag_error(t->diag, E_plan_header, span_at(t, b, e), "column `%s` stands twice", column_names[c]);
            t->at[c] = t->fields;
        }
        if (e - b == 6 && !memcmp(text + b, "offset", 6))
            diag_error(t->diag, E_plan_header, span_at(t, b, e), "the file has a column `offset` already");
        t->fields++;
    }
    for (int c = 0; c < COLUMNS; c++)
        if (t->at[c] < 0) {
            struct diagnostic *d = diag_error(t->diag, E_plan_header, span_at(t, begin, line_end),
                                              "no column `%s` in the header", column_names[c]);
            diag_help(t->diag, d, "the first line should read id,lower,upper,size, with commas and without quotes");
            if (t->fields == 1) /* the others are missing for the same reason */
                return;
        }
}

static void read_row(struct table *t, size_t begin, size_t line_end) {
    const char *text = t->source->text;
    size_t at = begin, b, e;
    int64_t values[COLUMNS] = {0};
    struct span spans[COLUMNS] = {{0}};
    bool good = true;
    int field = 0;
    for (; next_field(text, &at, line_end, &b, &e); field++)
        for (int c = 0; c < COLUMNS; c++) {
            if (t->at[c] != field)
                continue;
            spans[c] = span_at(t, b, e > b ? e : b + 1);
            enum number kind = c == ID ? NUMBER : parse_int(text + b, e - b, &values[c]);
            if (kind == TOO_LARGE)
                diag_error(t->diag, E_plan_row, spans[c], "%s is too large: `%.*s` is not within 2^59", column_names[c],
                           (int)(e - b > 40 ? 40 : e - b), text + b);
            else if (kind == NO_NUMBER && e == b)
                diag_error(t->diag, E_plan_row, spans[c], "%s is empty; it should be a whole number", column_names[c]);
            else if (kind == NO_NUMBER)
                diag_error(t->diag, E_plan_row, spans[c], "%s should be a whole number, not `%.*s`", column_names[c],
                           (int)(e - b > 40 ? 40 : e - b), text + b);
            good &= kind == NUMBER;
        }
    if (field != t->fields) {
        diag_error(t->diag, E_plan_row, span_at(t, begin, line_end), "the row has %d fields, the header %d", field,
                   t->fields);
        return;
    }
    if (!good)
        return;
    if (values[LOWER] > values[UPPER])
        diag_error(t->diag, E_plan_row, spans[UPPER], "the item ends at %lld, before it begins at %lld",
                   (long long)values[UPPER], (long long)values[LOWER]);
    if (values[SIZE] < 0 || values[SIZE] > ((int64_t)1 << 50)) {
        diag_error(t->diag, E_plan_row, spans[SIZE],
                   values[SIZE] < 0 ? "the size is negative" : "the size is above 2^50 bytes");
        return;
    }
    if (t->items.n >= MAX_ITEMS) {
        if (t->items.n == MAX_ITEMS)
            diag_error(t->diag, E_plan_row, span_at(t, begin, line_end), "more than %d items", MAX_ITEMS);
        return;
    }
    t->total += values[SIZE];
    if (t->total > (int64_t)1 << 60 && t->total - values[SIZE] <= (int64_t)1 << 60)
        diag_error(t->diag, E_plan_row, spans[SIZE], "the sizes add up to more than 2^60 bytes");
    struct arena *a = &t->diag->arena;
    VEC_PUSH(a, t->items, (struct placement_item){values[LOWER], values[UPPER], values[SIZE], 0});
    VEC_PUSH(a, t->rows, span_at(t, begin, line_end));
}

static void read_table(struct table *t) {
    const char *text = t->source->text;
    size_t n = t->source->length;
    bool header = true;
    size_t mark = n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0; /* of UTF-8, as spreadsheets write it */
    for (size_t begin = mark; begin < n && t->diag->errors < 20;) {
        size_t end = begin;
        while (end < n && text[end] != '\n')
            end++;
        size_t line_end = end > begin && text[end - 1] == '\r' ? end - 1 : end;
        if (header)
            read_header(t, begin, line_end);
        else if (line_end > begin)
            read_row(t, begin, line_end);
        if (header && t->diag->errors)
            return;
        header = false;
        begin = end + 1;
    }
    if (header)
        diag_error(t->diag, E_plan_header, span_at(t, 0, 0), "the file is empty; it needs a header");
}

static bool parse_bytes(const char *s, int64_t *bytes) {
    size_t n = strlen(s);
    int shift = 0;
    if (n && strchr("kKmMgG", s[n - 1])) {
        shift = s[n - 1] == 'k' || s[n - 1] == 'K' ? 10 : s[n - 1] == 'm' || s[n - 1] == 'M' ? 20 : 30;
        n--;
    }
    if (parse_int(s, n, bytes) != NUMBER || *bytes <= 0 || *bytes > ((int64_t)1 << 60 >> shift))
        return false;
    *bytes <<= shift;
    return true;
}

static const struct span nowhere = {NULL, 0, 0};

static int finish(struct diag *d, int status) {
    diag_print(d, stderr, isatty(2));
    diag_free(d);
    return status;
}

int plan_command(int argc, char **argv) {
    struct diag d;
    const char *in = NULL, *out = NULL, *seconds_text = NULL;
    int64_t capacity = 0;
    double seconds = DEFAULT_SECONDS;
    diag_init(&d);
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *value = NULL;
        const char *const options[] = {"-o", "--capacity", "--seconds"};
        int which = -1;
        for (int k = 0; k < 3; k++) {
            size_t n = strlen(options[k]);
            if (!strcmp(a, options[k])) {
                which = k;
                value = i + 1 < argc ? argv[++i] : NULL;
            } else if (!strncmp(a, options[k], n) && (a[n] == '=' || (k == 0 && a[n]))) {
                which = k;
                value = a + n + (a[n] == '=');
            } else {
                continue;
            }
            break;
        }
        if (which < 0 && a[0] == '-' && a[1]) {
            diag_error(&d, E_plan_usage, nowhere, "unknown option `%s`", a);
        } else if (which < 0 && in) {
            diag_error(&d, E_plan_usage, nowhere, "one file at a time: `%s` and `%s`", in, a);
        } else if (which < 0) {
            in = a;
        } else if (!value) {
            diag_error(&d, E_plan_usage, nowhere, "`%s` needs a value", options[which]);
        } else if (which == 0) {
            out = value;
        } else if (which == 1 && !parse_bytes(value, &capacity)) {
            diag_error(&d, E_plan_usage, nowhere,
                       "--capacity needs a positive number of bytes like 1048576, 1024K or 1M, not `%s`", value);
        } else if (which == 2) {
            char *end;
            seconds_text = value;
            seconds = strtod(seconds_text, &end);
            if (end == seconds_text || *end || !(seconds > 0) || seconds > 1e6)
                diag_error(&d, E_plan_usage, nowhere, "--seconds needs a positive number, not `%s`", value);
        }
    }
    if (!in && !d.errors)
        diag_error(&d, E_plan_usage, nowhere, "no file of lifetimes given");
    if (d.errors)
        return finish(&d, 2);

    size_t bytes;
    char *text = file_read(in, &bytes);
    if (!text) {
        diag_error(&d, E_plan_file, nowhere, "cannot read `%s`: %s", in, strerror(errno));
        return finish(&d, 1);
    }
    struct table t = {.diag = &d};
    t.source = diag_add_source(&d, in, text, bytes);
    free(text);
    read_table(&t);
    if (d.errors)
        return finish(&d, 1);

    int64_t bound = placement_load(t.items.at, t.items.n);
    if (capacity && bound > capacity) {
        diag_error(&d, E_plan_capacity, nowhere, "%lld bytes are alive at one time, above the capacity of %lld",
                   (long long)bound, (long long)capacity);
        return finish(&d, 1);
    }
    int64_t steps = (int64_t)(seconds * (double)PLACEMENT_STEPS_PER_SECOND);
    struct placement_result placed = placement_solve(t.items.at, t.items.n, 1, capacity, steps);
    int64_t height = placed.height;
    bound = placed.bound;
    int one, other;
    if (!placement_check(t.items.at, t.items.n, 1, &one, &other)) {
        struct text why = {0};
        text_printf(&why, "items %d and %d of the plan overlap", one, other);
        crash_report(text_string(&why));
    }
    if (capacity && height > capacity) {
        struct diagnostic *e = diag_error(&d, E_plan_capacity, nowhere,
                                          "the best placement found needs %lld bytes, above the capacity of %lld "
                                          "(the lower bound is %lld)",
                                          (long long)height, (long long)capacity, (long long)bound);
        if (bound <= capacity)
            diag_help(&d, e, "the search was given up after the steps of %g seconds; --seconds gives it more", seconds);
        return finish(&d, 1);
    }
    char given_up[100] = ""; /* within a capacity nothing lower was looked for */
    if (!capacity)
        (void)snprintf(given_up, sizeof given_up, ", given up after the steps of %g seconds (--seconds)", seconds);
    struct text result = {0};
    const char *source = t.source->text;
    size_t header = 0;
    while (header < t.source->length && source[header] != '\n' && source[header] != '\r')
        header++;
    text_addn(&result, source, header);
    text_add(&result, ",offset\n");
    for (int i = 0; i < t.items.n; i++) {
        text_addn(&result, source + t.rows.at[i].begin, t.rows.at[i].end - t.rows.at[i].begin);
        text_printf(&result, ",%lld\n", (long long)t.items.at[i].offset);
    }
    int status = 0;
    if (out && strcmp(out, "-") != 0) {
        if (file_write(out, result.data, result.length)) {
            diag_error(&d, E_plan_file, nowhere, "cannot write `%s`: %s", out, strerror(errno));
            status = 1;
        }
    } else if (fwrite(result.data, 1, result.length, stdout) != result.length || fflush(stdout)) {
        diag_error(&d, E_plan_file, nowhere, "cannot write to the standard output: %s", strerror(errno));
        status = 1;
    }
    if (!status && height == bound)
        fprintf(stderr, "%d items, %lld bytes, lower bound %lld: optimal\n", t.items.n, (long long)height,
                (long long)bound);
    else if (!status)
        fprintf(stderr, "%d items, %lld bytes, lower bound %lld: %.2f%% above%s\n", t.items.n, (long long)height,
                (long long)bound, 100.0 * (double)(height - bound) / (double)bound, given_up);
    text_free(&result);
    return finish(&d, status);
}
