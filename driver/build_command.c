/* `mxcc build`: C into a temporary folder, then the C compiler: a program with --main, else a shared library. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/driver.h"

static void add_words(struct arena *a, const char ***argv, int *n, const char *words) {
    char *copy = arena_strdup(a, words);
    for (char *word = strtok(copy, " \t"); word && *n < 60; word = strtok(NULL, " \t"))
        (*argv)[(*n)++] = word;
}

/* Runs a command; its own messages go to our stderr. */
static int run(const char **argv, bool verbose) {
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
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int compile(struct options *o, const char *c_file, const char *source_dir, bool zlib) {
    struct arena *a = &o->arena;
    struct places places = find_places(a);
    const char **argv = ARENA_ARRAY(a, const char *, 96);
    int n = 0;
    bool needs_runtime = o->compile.threads || o->compile.with_main;
    const char *cc = o->cc ? o->cc : getenv("CC");
    add_words(a, &argv, &n, cc && *cc ? cc : "cc");
    argv[n++] = o->compile.cpu ? "-std=gnu11" : "-std=c99";
    argv[n++] = arena_printf(a, "-O%s", o->optimize ? o->optimize : "3");
    argv[n++] = "-ffp-contract=off";
    argv[n++] = "-fno-math-errno";
    argv[n++] = "-fno-trapping-math";
    if (o->march)
        argv[n++] = arena_printf(a, "-march=%s", o->march);
    if (!o->compile.with_main) {
        argv[n++] = "-shared";
        argv[n++] = "-fPIC";
    }
    argv[n++] = arena_printf(a, "-I%s", source_dir);
    const char *model = o->inputs.at[0], *slash = strrchr(model, '/'); /* headers of its `extern` functions */
    argv[n++] = slash ? arena_printf(a, "-I%.*s", (int)(slash - model), model) : "-I.";
    if (needs_runtime)
        argv[n++] = arena_printf(a, "-I%s", places.include);
    const char *cflags = getenv("CFLAGS");
    if (cflags)
        add_words(a, &argv, &n, cflags);
    argv[n++] = c_file;
    argv[n++] = "-o";
    argv[n++] = o->output;
    if (needs_runtime) {
        argv[n++] = arena_printf(a, "%s/libmxrt.a", places.library);
        if (zlib)
            argv[n++] = "-lz";
        argv[n++] = "-lpthread";
    }
    if (o->compile.blas)
        argv[n++] = "-lopenblas";
    argv[n++] = "-lm";
    argv[n] = NULL;
    return run(argv, o->verbose);
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
    bool ok = pipeline_load(&p, &o, o.inputs.at[0]) && pipeline_weights(&p) && pipeline_passes(&p);
    struct text c = {0}, h = {0};
    ok = ok && pipeline_codegen(&p, &c, &h);
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
        const char *c_file = arena_printf(a, "%s/%s.c", dir, o.compile.name);
        const char *h_file = arena_printf(a, "%s/%s.h", dir, o.compile.name);
        if (ok)
            ok = write_output(&o, c_file, &c) && write_output(&o, h_file, &h);
        /* A library is of no use without its header. */
        const char *slash = strrchr(o.output, '/');
        if (ok && !o.compile.with_main && !o.keep)
            ok = write_output(
                &o, arena_printf(a, "%.*s%s.h", slash ? (int)(slash - o.output) + 1 : 0, o.output, o.compile.name), &h);
        if (ok) {
            int status = compile(&o, c_file, dir, strstr(text_string(&c), "mxrt_gunzip") != NULL);
            if (status != 0) {
                fprintf(stderr, "mxcc: the C compiler failed with status %d; --keep keeps the generated C\n", status);
                ok = false;
            } else if (o.depfile) {
                ok = write_depfile(&p, o.output);
            }
        }
        if (!o.keep) {
            remove(c_file);
            remove(h_file);
            rmdir(dir);
        }
    }
    text_free(&c);
    text_free(&h);
    return pipeline_end(&p, ok);
}
