/* `mxcc build`: C into a temporary folder, then the C compiler: a program with --main, else a shared library. For --target cuda the same
 * with a .cu and nvcc. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codegen/python/python.h"
#include "driver/driver.h"

/* Starts a command; its process, -1 if there is none to be had. */
static pid_t start(const char *const *argv, bool verbose) {
    if (verbose) {
        for (int i = 0; argv[i]; i++)
            fprintf(stderr, "%s%s", i ? " " : "", argv[i]);
        fputs("\n", stderr);
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        execvp(argv[0], (char *const *)argv);
        fprintf(stderr, "mxcc: cannot run %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    return pid;
}

static int finish(pid_t pid) {
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

struct command {
    const char *argv[128];
    int n;
};

static void add(struct command *c, const char *word) {
    if (c->n + 1 < 128)
        c->argv[c->n++] = word;
}

static void add_words(struct command *c, struct arena *a, const char *words) {
    for (char *word = strtok(arena_strdup(a, words), " \t"); word; word = strtok(NULL, " \t"))
        add(c, word);
}

static void c_flags(struct options *o, struct command *c) {
    struct arena *a = &o->arena;
    add(c, o->compile.cpu ? "-std=gnu11" : "-std=c99");
    add(c, arena_printf(a, "-O%s", o->optimize ? o->optimize : "3"));
    add(c, "-ffp-contract=off");
    add(c, "-fno-math-errno");
    add(c, "-fno-trapping-math");
    if (o->march)
        add(c, arena_printf(a, "-march=%s", o->march));
    if (!o->compile.with_main)
        add(c, "-fPIC");
}

/* -fmad=false: products and sums are rounded separately, as in C; where they are not meant to be, the unit says so. */
static void cuda_flags(struct options *o, struct command *c) {
    struct arena *a = &o->arena;
    add(c, "-std=c++17");
    add(c, arena_printf(a, "-O%s", o->optimize ? o->optimize : "3"));
    add(c, "-fmad=false");
    add(c, arena_printf(a, "-arch=%s", o->arch ? o->arch : "native"));
    if (!o->compile.with_main) {
        add(c, "-Xcompiler");
        add(c, "-fPIC");
    }
}

static struct command compiler(struct options *o, const char *source_dir) {
    struct arena *a = &o->arena;
    struct command c = {.n = 0};
    bool cuda = o->compile.target == TARGET_CUDA;
    const char *cc = o->cc ? o->cc : getenv(cuda ? "NVCC" : "CC"), *cflags = getenv(cuda ? "NVCCFLAGS" : "CFLAGS");
    add_words(&c, a, cc && *cc ? cc : cuda ? "nvcc" : "cc");
    if (cuda)
        cuda_flags(o, &c);
    else
        c_flags(o, &c);
    add(&c, arena_printf(a, "-I%s", source_dir));
    const char *model = o->inputs.at[0], *slash = strrchr(model, '/'); /* headers of its `extern` functions */
    add(&c, slash ? arena_printf(a, "-I%.*s", (int)(slash - model), model) : "-I.");
    if (o->compile.threads || o->compile.with_main)
        add(&c, arena_printf(a, "-I%s", find_places(a).include));
    if (cflags)
        add_words(&c, a, cflags);
    return c;
}

static int link_unit(struct options *o, struct command c, bool zlib) {
    struct arena *a = &o->arena;
    if (!o->compile.with_main)
        add(&c, "-shared");
    add(&c, "-o");
    add(&c, o->output);
    if (o->compile.threads || o->compile.with_main) {
        add(&c, arena_printf(a, "%s/libmxrt.a", find_places(a).library));
        if (zlib)
            add(&c, "-lz");
        add(&c, "-lpthread");
    }
    if (o->compile.blas)
        add(&c, "-lopenblas");
    if (o->compile.cublas)
        add(&c, "-lcublasLt");
    if (o->compile.cudnn)
        add(&c, "-lcudnn");
    if (o->compile.nccl)
        add(&c, "-lnccl");
    add(&c, "-lm");
    return finish(start(c.argv, o->verbose));
}

static const char *object_name(struct options *o, const char *dir, int i) {
    return arena_printf(&o->arena, "%s/%s_%d.o", dir, o->compile.name, i);
}

/* One file: compiled and linked by one command. Several: all compiled at once, then linked. */
static int compile(struct options *o, const char *dir, const struct c_unit *unit) {
    struct arena *a = &o->arena;
    struct command c = compiler(o, dir), all = c;
    bool zlib = false;
    pid_t at_work[C_UNIT_FILES];
    int status = 0;
    for (int i = 0; i < unit->count; i++) {
        const char *source = arena_printf(a, "%s/%s", dir, codegen_part_name(a, &o->compile, i));
        zlib |= strstr(text_string(&unit->files[i]), "mxrt_gunzip") != NULL;
        add(&all, unit->count == 1 ? source : object_name(o, dir, i));
        if (unit->count > 1) {
            struct command one = c;
            add(&one, "-c");
            add(&one, source);
            add(&one, "-o");
            add(&one, object_name(o, dir, i));
            at_work[i] = start(one.argv, o->verbose);
        }
    }
    for (int i = 0; unit->count > 1 && i < unit->count; i++) {
        int one = finish(at_work[i]);
        if (one != 0)
            status = one;
    }
    if (status == 0)
        status = link_unit(o, all, zlib);
    for (int i = 0; unit->count > 1 && i < unit->count; i++)
        remove(object_name(o, dir, i));
    return status;
}

/* --python: the module beside the library, which it looks for by name. Python imports NAME.so before NAME.py. */
static const char *python_module(struct options *o) {
    const char *slash = strrchr(o->output, '/');
    const char *module = codegen_python_module(&o->arena, o->compile.name);
    o->compile.library = slash ? slash + 1 : o->output;
    for (int i = 0; i < 2; i++)
        if (strcmp(o->compile.library, arena_printf(&o->arena, "%s.%s", module, i ? "py" : "so")) == 0) {
            usage_error("-o %s: Python would import this file in place of the module %s.py; `-o lib%s.so` is the usual "
                        "name",
                        o->output, module, module);
            return NULL;
        }
    return arena_printf(&o->arena, "%.*s%s.py", slash ? (int)(slash - o->output) + 1 : 0, o->output, module);
}

int build_command(int argc, char **argv) {
    struct options o;
    struct pipeline p;
    if (!options_parse(&o, 'b', argc, argv))
        return EXIT_USAGE;
    struct arena *a = &o.arena;
    if (!o.output) {
        const char *stem = stem_of(a, o.inputs.at[0]);
        o.output = o.compile.with_main ? stem : arena_printf(a, "lib%s.so", stem);
    }
    struct stat st;
    if (stat(o.output, &st) == 0 && S_ISDIR(st.st_mode)) {
        usage_error("-o %s is a folder", o.output);
        arena_free(&o.arena);
        return EXIT_USAGE;
    }
    /* libNAME.so: the prefix is NAME. */
    if (!o.name) {
        const char *stem = stem_of(a, o.output);
        o.name = strncmp(stem, "lib", 3) == 0 && !o.compile.with_main && stem[3] ? stem + 3 : stem;
        o.compile.name = cgen_identifier(a, o.name);
        o.name = NULL;
    }
    if (!o.compile.name)
        o.compile.name = o.name;
    const char *python = NULL;
    if (o.compile.python && !(python = python_module(&o))) {
        arena_free(&o.arena);
        return EXIT_USAGE;
    }
    bool ok = pipeline_load(&p, &o, o.inputs.at[0]) && pipeline_passes(&p) && pipeline_weights(&p);
    struct c_unit unit = {0};
    o.compile.header = arena_printf(a, "%s.h", o.compile.name);
    ok = ok && pipeline_codegen(&p, &unit);
    if (ok) {
        const char *temp = getenv("TMPDIR");
        char *dir = arena_printf(a, "%s/mxcc-XXXXXX", temp && *temp ? temp : "/tmp");
        if (o.keep) {
            const char *slash = strrchr(o.output, '/');
            dir = slash ? arena_strndup(a, o.output, (size_t)(slash - o.output)) : arena_strdup(a, ".");
        } else if (!mkdtemp(dir)) {
            fprintf(stderr, "mxcc: cannot make a folder in %s: %s\n", temp ? temp : "/tmp", strerror(errno));
            ok = false;
        }
        if (ok)
            ok = write_unit(&p, arena_printf(a, "%s/", dir), &unit);
        /* A library is of no use without its header. */
        const char *slash = strrchr(o.output, '/');
        if (ok && !o.compile.with_main && !o.keep)
            ok = write_output(
                &o, arena_printf(a, "%.*s%s", slash ? (int)(slash - o.output) + 1 : 0, o.output, o.compile.header),
                &unit.header);
        if (ok && python)
            ok = write_output(&o, python, &unit.python);
        if (ok) {
            int status = compile(&o, dir, &unit);
            if (status != 0) {
                fprintf(stderr, "mxcc: %s failed with status %d; --keep keeps the generated file\n",
                        o.compile.target == TARGET_CUDA ? "nvcc" : "the C compiler", status);
                ok = false;
            } else if (o.depfile) {
                ok = write_depfile(&p, o.output);
            }
        }
        if (!o.keep) {
            for (int i = -1; i < unit.count; i++)
                remove(arena_printf(a, "%s/%s", dir, codegen_part_name(a, &o.compile, i)));
            remove(arena_printf(a, "%s/%s", dir, o.compile.header));
            rmdir(dir);
        }
    }
    c_unit_free(&unit);
    return pipeline_end(&p, ok);
}
