/* Parsing the command line by one table; a wrong word is answered with the nearest right one. */
#include "driver/driver.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum option_kind { FLAG, TEXT, NUMBER, BYTES, CALL };

/* Which field an option sets; CALL options are told apart by it too. */
struct option_row {
    const char *name;
    enum option_kind kind;
    size_t field;
    const char *call, *argument, *commands, *help;
};

/* CALL rows name no field of the struct. */
#define FIELD_FLAG(f)   offsetof(struct options, f)
#define FIELD_TEXT(f)   offsetof(struct options, f)
#define FIELD_NUMBER(f) offsetof(struct options, f)
#define FIELD_BYTES(f)  offsetof(struct options, f)
#define FIELD_CALL(f)   0
static const struct option_row rows[] = {
#define O(name, kind, field, argument, commands, help) \
    {name, kind, FIELD_##kind(field), #field, argument, commands, help},
#include "driver/options.def"
#undef O
};
enum { ROWS = sizeof rows / sizeof *rows };

const struct cpu_row cpu_table[] = {
    {"portable", NULL, 32, "any processor; C99"},
    {"native", "native", 0, "the machine mxcc runs on"},
    {"x86-64-v2", "x86-64-v2", 16, "SSE4.2"},
    {"x86-64-v3", "x86-64-v3", 32, "AVX2, FMA"},
    {"x86-64-v4", "x86-64-v4", 64, "AVX-512"},
    {"neon", "armv8-a", 16, "64-bit Arm"},
    {NULL, NULL, 0, NULL},
};

void usage_error(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("mxcc: ", stderr);
    vfprintf(stderr, format, args);
    fputs("\n", stderr);
    va_end(args);
}

/* Levenshtein's distance, one row at a time. */
static int edits(const char *a, const char *b) {
    size_t n = strlen(b);
    int row[64];
    if (n >= 64)
        return 99;
    for (size_t j = 0; j <= n; j++)
        row[j] = (int)j;
    for (int i = 1; *a; a++, i++) {
        int diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            int best = diagonal + (*a != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

const char *nearest_word(const char *word, const char *const *words, int count) {
    int best = (int)strlen(word) / 3 + 2;
    const char *found = NULL;
    for (int i = 0; i < count; i++) {
        int e = edits(word, words[i]);
        if (e < best) {
            best = e;
            found = words[i];
        }
    }
    return found;
}

static const char *const color_words[] = {"auto", "always", "never", NULL}; /* in order of color_mode */

static const char *const precision_words[] = {"f32", "tf32", "bf16", "f16", NULL}; /* in order of enum precision */

const char *precision_name(enum precision p) {
    return precision_words[p];
}

static bool is_color_word(const char *word) {
    int i = 0;
    while (color_words[i] && strcmp(color_words[i], word) != 0)
        i++;
    return color_words[i] != NULL;
}

static bool takes(const struct option_row *r, char command) {
    return strchr(r->commands, '*') || strchr(r->commands, command);
}

static const struct option_row *find(const char *argument, char command, const char **value) {
    *value = NULL;
    for (int i = 0; i < ROWS; i++) {
        size_t n = strlen(rows[i].name);
        if (strncmp(argument, rows[i].name, n) != 0 || !takes(&rows[i], command))
            continue;
        if (argument[n] == 0)
            return &rows[i];
        if (argument[n] == '=' && argument[1] == '-') {
            *value = argument + n + 1;
            return &rows[i];
        }
        if (argument[1] != '-' && n == 2 && rows[i].kind != FLAG) { /* -O2, -Werror */
            *value = argument + n;
            return &rows[i];
        }
    }
    return NULL;
}

static bool choose(const char *option, const char *value, const char *const *words, int *index) {
    int n = 0;
    for (; words[n]; n++)
        if (strcmp(words[n], value) == 0) {
            *index = n;
            return true;
        }
    const char *near = nearest_word(value, words, n);
    fprintf(stderr, "mxcc: %s %s: expected ", option, value);
    for (int i = 0; i < n; i++)
        fprintf(stderr, "%s%s", i ? i + 1 < n ? ", " : " or " : "", words[i]);
    fprintf(stderr, near ? "; did you mean %s?\n" : "\n", near);
    return false;
}

static bool number(const char *option, const char *value, bool units, int64_t *out) {
    char *end;
    double v = strtod(value, &end);
    double unit = 1;
    if (units && end != value && *end) {
        unit = *end == 'K' || *end == 'k' ? 1024 : *end == 'M' ? 1048576 : *end == 'G' ? 1073741824 : 0;
        end++;
    }
    if (end == value || *end || unit == 0 || !(v > 0) || v * unit > 9e18 || (unit == 1 && v != (double)(int64_t)v)) {
        usage_error("%s %s: expected a number%s", option, value,
                    units ? " of bytes like 262144, 256K or 4M" : " above 0");
        return false;
    }
    *out = (int64_t)(v * unit);
    return true;
}

static bool cpu(struct options *o, const char *value) {
    const char *names[32];
    int n = 0;
    for (; cpu_table[n].name; n++)
        names[n] = cpu_table[n].name;
    names[n] = NULL;
    int i;
    if (!choose("--cpu", value, names, &i))
        return false;
    o->cpu_given = true;
    o->compile.cpu = i == 0 ? NULL : cpu_table[i].name;
    o->march = cpu_table[i].march;
    o->compile.vector_bytes = cpu_table[i].vector_bytes;
    o->compile.vector_extensions = i > 0;
#if defined(__x86_64__)
    if (strcmp(value, "native") == 0)
        o->compile.vector_bytes = __builtin_cpu_supports("avx512f") ? 64 : __builtin_cpu_supports("avx2") ? 32 : 16;
#else
    if (strcmp(value, "native") == 0)
        o->compile.vector_bytes = 16;
#endif
    return true;
}

/* SCALE[:STEPS] */
static bool loss_scale(struct options *o, const char *option, const char *value) {
    char *end, *last;
    int exponent = 0;
    double scale = strtod(value, &end);
    long long steps = *end == ':' ? strtoll(end + 1, &last, 10) : 2000;
    bool good = end != value && (*end == 0 || (*end == ':' && last != end + 1 && *last == 0));
    if (!good || !(scale >= LEAST_LOSS_SCALE && scale <= LARGEST_LOSS_SCALE) || frexp(scale, &exponent) != 0.5 ||
        steps < 1 || steps > INT32_MAX) {
        usage_error(
            "%s %s: expected a power of two from 2^-30 to 2^30 and, behind a colon, a number of steps above 0, as in "
            "65536:2000",
            option, value);
        return false;
    }
    o->compile.loss_scale = scale;
    o->compile.loss_scale_steps = steps;
    return true;
}

static bool call(struct options *o, const struct option_row *r, const char *value) {
    int i = 0;
    struct arena *a = &o->arena;
    const char *what = r->call;
    if (strcmp(what, "target") == 0) {
        if (!choose(r->name, value, (const char *const[]){"c", "cuda", NULL}, &i))
            return false;
        o->compile.target = i ? TARGET_CUDA : TARGET_C;
    } else if (strcmp(what, "gpu") == 0) {
        const char *names[32];
        int n = 0;
        for (; gpu_table[n].name; n++)
            names[n] = gpu_table[n].name;
        names[n] = NULL;
        if (!choose(r->name, value, names, &i))
            return false;
        o->gpu = &gpu_table[i];
        o->compile.target = TARGET_CUDA;
    } else if (strcmp(what, "cpu") == 0) {
        return cpu(o, value);
    } else if (strcmp(what, "bind") == 0) {
        const char *equals = strchr(value, '=');
        char *end = NULL;
        long long largest = 0;
        errno = 0;
        if (equals && equals > value)
            largest = strtoll(equals + 1, &end, 10);
        if (!end || end == equals + 1 || *end || largest < 1 || errno) {
            usage_error("--bind %s: expected NAME=NUMBER, as in --bind N=64, with a number of at least 1", value);
            return false;
        }
        VEC_PUSH(a, o->binds, value);
    } else if (strcmp(what, "weights") == 0) {
        if (!choose(r->name, value, (const char *const[]){"init", "source", "file", "caller", NULL}, &i))
            return false;
        o->compile.weights = (enum weights_mode)i;
    } else if (strcmp(what, "plan") == 0) {
        if (!choose(r->name, value, (const char *const[]){"fast", "best", NULL}, &i))
            return false;
        o->compile.plan_best = i;
    } else if (strcmp(what, "blas") == 0) {
        if (!choose(r->name, value, (const char *const[]){"none", "openblas", NULL}, &i))
            return false;
        o->compile.blas = i;
    } else if (strcmp(what, "precision") == 0) {
        if (!choose(r->name, value, precision_words, &i))
            return false;
        o->compile.precision = (enum precision)i;
    } else if (strcmp(what, "loss_scale") == 0) {
        return loss_scale(o, r->name, value);
    } else if (strcmp(what, "emit") == 0) {
        if (!choose(r->name, value,
                    (const char *const[]){"c", "ast", "ir", "deps", "deps.dot", "deps.json", "plan", NULL}, &i))
            return false;
        o->emit = (enum emit_kind)i;
    } else if (strcmp(what, "gradient_overwrite") == 0) {
        if (!choose(r->name, value, (const char *const[]){"copy", "error", NULL}, &i))
            return false;
        o->compile.gradient_overwrite_error = i;
    } else if (strcmp(what, "explain") == 0) {
        if (!choose(r->name, value, (const char *const[]){"copies", NULL}, &i))
            return false;
        o->compile.explain_copies = true;
    } else if (strcmp(what, "warning") == 0) {
        if (!choose("-W", value, (const char *const[]){"error", "none", "all", NULL}, &i))
            return false;
        o->warnings_as_errors |= i == 0;
        o->no_warnings |= i == 1;
    } else if (strcmp(what, "color") == 0) {
        if (!choose(r->name, value, color_words, &i))
            return false;
        o->color = (enum color_mode)i;
    } else if (strcmp(what, "diagnostics") == 0) {
        if (!choose(r->name, value, (const char *const[]){"text", "json", NULL}, &i))
            return false;
        o->json = i;
    } else if (strcmp(what, "stdlib") == 0) {
        VEC_PUSH(a, o->stdlib_dirs, value);
    }
    return true;
}

static bool apply(struct options *o, const struct option_row *r, const char *value) {
    char *field = (char *)o + r->field;
    int64_t n = 0;
    switch (r->kind) {
    case FLAG:
        if (value) {
            usage_error("%s takes no value", r->name);
            return false;
        }
        *(bool *)field = true;
        return true;
    case TEXT: *(const char **)field = value; return true;
    case NUMBER:
    case BYTES:
        if (!number(r->name, value, r->kind == BYTES, &n))
            return false;
        *(int64_t *)field = n;
        return true;
    case CALL: return call(o, r, value);
    }
    return false;
}

static bool unknown(const struct options *o, const char *argument) {
    const char *names[ROWS];
    int n = 0;
    for (int i = 0; i < ROWS; i++)
        if (takes(&rows[i], o->command))
            names[n++] = rows[i].name;
    size_t length = strcspn(argument, "=");
    char *word = strndup(argument, length);
    const char *near = nearest_word(word, names, n), *elsewhere = NULL;
    for (int i = 0; i < ROWS; i++)
        if (strcmp(rows[i].name, word) == 0)
            elsewhere = rows[i].name;
    if (elsewhere)
        usage_error("%s does not belong to this command", word);
    else if (near)
        usage_error("there is no option %s; did you mean %s?", word, near);
    else
        usage_error("there is no option %s; `mxcc --help` lists them", word);
    free(word);
    return false;
}

/* --target cuda, or -o NAME.cu: options of the C target mean nothing there. */
static bool for_target(struct options *o) {
    size_t n = o->output ? strlen(o->output) : 0;
    bool cuda = n > 3 && strcmp(o->output + n - 3, ".cu") == 0 && o->command == 'c' && o->emit == EMIT_C;
    if (cuda)
        o->compile.target = TARGET_CUDA;
    if (o->compile.target != TARGET_CUDA && o->arch) {
        usage_error("--arch belongs to --target cuda; --cpu names a processor");
        return false;
    }
    if (o->compile.target != TARGET_CUDA && o->compile.cublas) {
        usage_error("--cublas belongs to --target cuda; --blas names a library of the CPU");
        return false;
    }
    if (o->compile.target != TARGET_CUDA && o->compile.cudnn) {
        usage_error("--cudnn belongs to --target cuda");
        return false;
    }
    if (o->compile.target != TARGET_CUDA && o->compile.nccl) {
        usage_error("--nccl belongs to --target cuda; other programs average over MPI, or between threads");
        return false;
    }
    if (o->compile.nccl && (!o->compile.with_main || o->compile.no_ranks)) {
        usage_error("--nccl belongs to programs that train over ranks: --main, without --no-ranks");
        return false;
    }
    if (o->compile.target != TARGET_CUDA)
        return true;
    const struct {
        const char *name, *why;
        bool given;
    } others[] = {
        {"--no-runtime", "the unit needs the CUDA runtime, which allocates", o->compile.no_runtime},
        {"--threads", "kernels run on the GPU, and the host waits", o->compile.threads},
        {"--cpu", "nvcc's -arch chooses the GPU", o->cpu_given},
        {"--blas", "that library is of the CPU", o->compile.blas},
        {"--split", "a CUDA unit is one file", o->split > 1},
        {"--line-directives", "messages name the model's lines already", o->compile.line_directives},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i].given) {
            usage_error("%s does not go with --target cuda: %s", others[i].name, others[i].why);
            return false;
        }
    return true;
}

static bool parse(struct options *o, char command, int argc, char **argv) {
    *o = (struct options){.command = command, .program = argv[0]};
    struct arena *a = &o->arena;
    bool only_files = false;
    for (int i = 1; i < argc; i++) {
        const char *value;
        if (only_files || argv[i][0] != '-' || argv[i][1] == 0) {
            /* `run` hands everything behind the file on, but for the options it knows itself. */
            if (command == 'r' && o->inputs.n > 0)
                VEC_PUSH(a, o->rest, argv[i]);
            else
                VEC_PUSH(a, o->inputs, argv[i]);
            continue;
        }
        if (strcmp(argv[i], "--") == 0) {
            only_files = true;
            continue;
        }
        const struct option_row *r = find(argv[i], command, &value);
        if (!r && command == 'r') {
            VEC_PUSH(a, o->rest, argv[i]);
            continue;
        }
        if (!r)
            return unknown(o, argv[i]);
        if (!value && strcmp(r->name, "--color") == 0 && !is_color_word(i + 1 < argc ? argv[i + 1] : "")) {
            value = "always"; /* alone, as with other tools */
        } else if (r->kind != FLAG && !value) {
            if (i + 1 == argc) {
                usage_error("%s needs a value: %s", r->name, r->argument);
                return false;
            }
            value = argv[++i];
        }
        if (!apply(o, r, value))
            return false;
    }
    if (o->inputs.n == 0) {
        usage_error("no input file");
        return false;
    }
    if (o->inputs.n > 1 && command != 'f' && command != 'k' && command != 'd') {
        usage_error("one model at a time: %s and %s were given", o->inputs.at[0], o->inputs.at[1]);
        return false;
    }
    if (o->compile.no_runtime && (o->compile.threads || o->compile.with_main)) {
        usage_error("--no-runtime excludes %s, which needs libmxrt", o->compile.threads ? "--threads" : "--main");
        return false;
    }
    if (o->compile.python && o->compile.with_main) {
        usage_error("--python excludes --main: it is for a shared library, which a program is not");
        return false;
    }
    if (o->html && o->report_json) {
        usage_error("--html and --json are two forms of one report: choose one");
        return false;
    }
    if (o->compile.loss_scale > 0 && o->compile.precision != PRECISION_F16) {
        usage_error("--loss-scale belongs to --precision f16: the other types have the range of f32");
        return false;
    }
    if (!for_target(o))
        return false;
    if (o->compile.precision == PRECISION_TF32 && o->compile.target != TARGET_CUDA) {
        usage_error("--precision tf32 belongs to --target cuda: processors have no such products");
        return false;
    }
    if (o->split < 0 || o->split > C_UNIT_FILES) {
        usage_error("--split %lld: 1 to %d files", (long long)o->split, C_UNIT_FILES);
        return false;
    }
    o->compile.split = (int)o->split;
    if (o->compile.vector_bytes == 0)
        o->compile.vector_bytes = 32;
    VEC_PUSH(a, o->inputs, NULL);
    o->inputs.n--;
    VEC_PUSH(a, o->rest, NULL);
    o->rest.n--;
    VEC_PUSH(a, o->binds, NULL);
    o->binds.n--;
    VEC_PUSH(a, o->stdlib_dirs, NULL);
    o->stdlib_dirs.n--;
    return true;
}

bool options_parse(struct options *o, char command, int argc, char **argv) {
    if (parse(o, command, argc, argv))
        return true;
    arena_free(&o->arena);
    return false;
}

void options_help(FILE *out, char command) {
    for (int i = 0; i < ROWS; i++)
        if (takes(&rows[i], command)) {
            char head[64];
            (void)snprintf(head, sizeof head, "%s%s%s", rows[i].name,
                           rows[i].argument ? rows[i].name[1] == '-' ? " " : "" : "",
                           rows[i].argument ? rows[i].argument : "");
            fprintf(out, "  %-28s %s\n", head, rows[i].help);
        }
}

bool options_colour(const struct options *o) {
    if (o->color != COLOR_AUTO)
        return o->color == COLOR_ALWAYS;
    const char *term = getenv("TERM"), *no = getenv("NO_COLOR");
    return isatty(2) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}
