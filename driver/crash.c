/* When mxcc itself fails: a file with the command line and the model, and where to send it. Status 3.
 *
 * The handler runs on its own stack (a stack overflow is the most likely crash) and calls only what POSIX allows in one. */
#include "driver/driver.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A signal handler has no context argument: the one place of state. */
static struct {
    char command[2048];
    const struct source *source;
    char path[64];
} crash;

static void put(int fd, const char *text, size_t n) {
    while (n > 0) {
        ssize_t done = write(fd, text, n);
        if (done <= 0)
            return;
        text += done;
        n -= (size_t)done;
    }
}

static void puts_fd(int fd, const char *text) {
    put(fd, text, strlen(text));
}

static void reproducer(const char *what) {
    int fd = open(crash.path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd >= 0) {
        puts_fd(fd, "// A bug in mxcc: ");
        puts_fd(fd, what);
        puts_fd(fd, "\n// ");
        puts_fd(fd, crash.command);
        puts_fd(fd, "\n");
        if (crash.source) {
            puts_fd(fd, "// the model, ");
            puts_fd(fd, crash.source->path);
            puts_fd(fd, ":\n");
            put(fd, crash.source->text, crash.source->length);
        }
        close(fd);
    }
    puts_fd(2, "mxcc: a bug in mxcc: ");
    puts_fd(2, what);
    if (fd >= 0) {
        puts_fd(2, "\nmxcc: please send the file ");
        puts_fd(2, crash.path);
        puts_fd(2, ", which holds the model and the command, with your report");
    }
    puts_fd(2, "\n");
}

#if !defined(__SANITIZE_ADDRESS__) /* whose own reports say more */
static void on_signal(int number) {
    signal(number, SIG_DFL);
    reproducer(number == SIGSEGV   ? "it touched memory that is not its own (or ran out of stack)"
               : number == SIGABRT ? "it aborted"
               : number == SIGFPE  ? "an arithmetic error"
                                   : "a fatal signal");
    _exit(EXIT_BUG);
}
#endif

void crash_watch(int argc, char **argv) {
    size_t n = 0;
    for (int i = 0; i < argc && n + 2 < sizeof crash.command; i++)
        n += (size_t)snprintf(crash.command + n, sizeof crash.command - n, i ? " %s" : "%s", i ? argv[i] : "mxcc");
    (void)snprintf(crash.path, sizeof crash.path, "mxcc-bug-%ld.mxl", (long)getpid());
#if !defined(__SANITIZE_ADDRESS__)
    static char stack[65536];
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
#endif
}

void crash_source(const struct source *s) {
    crash.source = s;
}

void crash_report(const char *what) {
    reproducer(what);
    exit(EXIT_BUG);
}
