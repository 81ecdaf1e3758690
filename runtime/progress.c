/* See mxrt/progress.h. */
#include "mxrt/progress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

double mxrt_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void mxrt_progress_start(struct mxrt_progress *p, FILE *out, bool quiet) {
    const char *term = getenv("TERM");
    memset(p, 0, sizeof *p);
    p->out = out;
    p->quiet = quiet;
    p->terminal = !quiet && isatty(fileno(out)) && !(term && strcmp(term, "dumb") == 0);
    p->columns = 80;
    struct winsize size;
    if (p->terminal && ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 20)
        p->columns = size.ws_col;
    p->started = mxrt_seconds();
}

void mxrt_progress_begin(struct mxrt_progress *p) {
    p->started = mxrt_seconds();
}

void mxrt_progress_update(struct mxrt_progress *p, const char *head, int64_t done, int64_t total, const char *tail) {
    double now = mxrt_seconds();
    if (!p->terminal || total <= 0 || (p->drawn && now - p->last < 0.1 && done < total))
        return;
    p->last = now;
    p->drawn = true;
    char left[32] = "";
    if (done > 0 && done < total)
        (void)snprintf(left, sizeof left, "  %.0f s left", (now - p->started) / (double)done * (double)(total - done));
    int room = p->columns - (int)strlen(head) - (int)strlen(tail) - (int)strlen(left) - 8;
    if (room > 40)
        room = 40;
    fprintf(p->out, "\r\033[K%s ", head);
    if (room >= 5) {
        int full = (int)(done * room / total);
        fputc('[', p->out);
        for (int i = 0; i < room; i++)
            fputc(i < full ? '=' : i == full ? '>' : ' ', p->out);
        fputc(']', p->out);
    }
    fprintf(p->out, "  %s%s", tail, left);
    fflush(p->out);
}

void mxrt_progress_line(struct mxrt_progress *p, const char *line) {
    if (p->quiet)
        return;
    fprintf(p->out, "%s%s\n", p->drawn ? "\r\033[K" : "", line);
    fflush(p->out);
    p->drawn = false;
}
