/* mxcc: the command line's first word decides; without one of them it is a model to compile. */
#include <pthread.h>
#include <string.h>

#include "driver/driver.h"
#include "driver/plan_command.h"

#define VERSION "0.1.0"

static const struct {
    const char *name, *arguments, *text;
    int (*run)(int argc, char **argv);
    char letter; /* of options.def, for --help; 0: no options */
} commands[] = {
    {"build", "model.mxl [-o model]",
     "compile and link: with --main a program, else a shared library; with --python a Python module beside it",
     build_command, 'b'},
    {"run", "model.mxl [args]", "eager: the train block, or --call predict --in x=x.npy --out dir", run_command, 'r'},
    {"check", "model.mxl…", "errors only", check_command, 'k'},
    {"fmt", "model.mxl…", "lay out anew", fmt_command, 'f'},
    {"doc", "model.mxl…", "documentation as Markdown", doc_command, 'd'},
    {"report", "model.mxl", "operations, FLOPs, memory plan and its lower bound, copies and why", report_command, 'p'},
    {"plan", "lifetimes.csv [--capacity BYTES] -o offsets.csv", "the memory planner alone", plan_command, 0},
    {"explain", "E0207", "an error at length", explain_command, 0},
    {"ops", "", "every operation and function", list_command, 0},
    {"passes", "", "the passes in order", list_command, 0},
    {"targets", "", "what --target and --cpu know", list_command, 0},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void help(FILE *out) {
    fputs("mxcc compiles models to C.\n\n  mxcc model.mxl -o model.c    C and header (model.h)\n", out);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  mxcc %s %s\n      %s\n", commands[i].name, commands[i].arguments, commands[i].text);
    fputs(
        "  mxcc --cflags --libs\n      what compiling and linking generated code needs\n\noptions of `mxcc model.mxl -o model.c` (`mxcc COMMAND --help` for others)\n",
        out);
    options_help(out, 'c');
    fputs("\nExit status: 0, 1 (errors in the model), 2 (usage), 3 (a bug in mxcc, with a reproducer written).\n", out);
}

static int command(int argc, char **argv) {
    if (argc < 2) {
        help(stderr);
        return EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        help(stdout);
        return EXIT_OK;
    }
    if (strcmp(word, "--version") == 0) {
        printf("mxcc %s\n", VERSION);
        return EXIT_OK;
    }
    if (strcmp(word, "--cflags") == 0 || strcmp(word, "--libs") == 0)
        return flags_command(argc - 1, argv + 1);
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, word) == 0) {
            if (argc == 3 && strcmp(argv[2], "--help") == 0) {
                printf("mxcc %s %s\n  %s\n\n", word, commands[i].arguments, commands[i].text);
                if (commands[i].letter)
                    options_help(stdout, commands[i].letter);
                return EXIT_OK;
            }
            return commands[i].run(argc - 1, argv + 1);
        }
    /* A first word that is neither option nor file is most likely a command with a slip. */
    if (word[0] != '-' && !strchr(word, '.') && !strchr(word, '/')) {
        const char *names[COMMANDS];
        for (int i = 0; i < COMMANDS; i++)
            names[i] = commands[i].name;
        const char *near = nearest_word(word, names, COMMANDS);
        if (near)
            usage_error("there is no command %s; did you mean %s?", word, near);
        else
            usage_error("%s is neither a command nor a model (.mxl); `mxcc --help` lists the commands", word);
        return EXIT_USAGE;
    }
    return compile_command(argc, argv);
}

struct call {
    int argc, status;
    char **argv;
};

static void *on_thread(void *context) {
    struct call *c = context;
    crash_watch(c->argc, c->argv);
    c->status = command(c->argc, c->argv);
    return NULL;
}

/* The stages recurse as deep as a program nests (expressions, calls, blocks of blocks), so they run on a stack that is larger than what
 * a login shell grants; only the pages that are touched cost memory. */
int main(int argc, char **argv) {
    static const size_t stack = (size_t)512 << 20;
    struct call c = {argc, EXIT_BUG, argv};
    pthread_attr_t attributes;
    pthread_t thread;
    bool made = pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, stack) == 0 &&
                pthread_create(&thread, &attributes, on_thread, &c) == 0;
    if (!made || pthread_join(thread, NULL) != 0)
        on_thread(&c);
    return c.status;
}
