/* A progress bar on a terminal, plain lines elsewhere. */
#ifndef MXRT_PROGRESS_H
#define MXRT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct mxrt_progress {
    FILE *out;
    bool terminal, quiet;
    int columns;
    double last, started; /* seconds */
    bool drawn;
};

double mxrt_seconds(void); /* monotonic */
void mxrt_progress_start(struct mxrt_progress *p, FILE *out, bool quiet);
/* Draws at most ten times a second: `head`, a bar of done / total, `tail`. */
void mxrt_progress_update(struct mxrt_progress *p, const char *head, int64_t done, int64_t total, const char *tail);
void mxrt_progress_begin(struct mxrt_progress *p); /* restarts the clock of the time left */
/* Replaces the bar by a line that stays. */
void mxrt_progress_line(struct mxrt_progress *p, const char *line);

#endif
