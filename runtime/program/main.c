/* The command line of a generated program, and of `mxcc run`. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

static void help(const struct mxrt_program *p, FILE *out) {
    fprintf(out, "usage: %s [train|evaluate|predict|call NAME] [options]\n\n", p->name);
    if (p->setting_count)
        fputs(
            "  train              the default: train, save, evaluate after every epoch\n"
            "    --epochs N       --batch N         instead of the train block's\n"
            "    --seed N         of initial values, order and random numbers (0)\n"
            "    --resume         go on from the last checkpoint, to the same bits\n"
            "    --steps N        stop (and save) after so many steps\n"
            "    --kvstore TYPE     where gradients meet: local (the default); device: all GPUs of this machine, if the\n"
            "                       program was made with --nccl; dist_sync, dist_async: over the processes that mpirun\n"
            "                       or srun started\n"
            "    --virtual-ranks N  as N processes would, to the bit, in this one\n"
            "    --servers K        the first K ranks also keep the parameters and apply the updates\n"
            "    --shard            the optimizer's state is split over the ranks\n"
            "    --compression KIND gradients on their way: 2bit:0.5 or 1bit:0 (thresholds), bf16, topk:0.01 (the part kept)\n"
            "    --reduction fast   the library's order of summation instead of a fixed one\n"
            "    --bucket BYTES     gradients that go together; else from what the network takes\n"
            "    --node-ranks N     neighbours that share a machine (as MPI finds them): sums go within it first\n"
            "    --rank-timeout S   a rank that gives no sign of life for so long is lost (10)\n"
            "  evaluate           the held-out part\n"
            "  exchange           what a step over ranks sends, and when (JSON)\n",
            out);
    fputs("  call NAME          one call; predict is call predict\n"
          "    --in ARG=VALUE   a number or a .npy file, once for each argument\n",
          out);
    fprintf(out,
            "\n    --data PATH      a file or folder instead of the train block's\n"
            "    --out FOLDER     train: where metrics and checkpoint go (%s-run); call: where results go\n"
            "    --weights FILE   start from this checkpoint\n"
            "    --threads N      0: one a processor (the default), 1: serial\n"
            "    --trace FILE     when batches, steps and checkpoints were made: Chrome trace events\n"
            "    --quiet          --json            less, or machine-readable, output\n\nfunctions\n",
            p->name);
    for (int i = 0; i < p->function_count; i++) {
        const struct mxrt_function *f = &p->functions[i];
        fprintf(out, "  %s(", f->name);
        for (int k = 0; k < f->arg_count; k++)
            fprintf(out, "%s%s: %s", k ? ", " : "", f->args[k].name, mxrt_dtype_name(f->args[k].dtype));
        fputs(")", out);
        for (int k = 0; k < f->result_count; k++)
            fprintf(out, "%s%s", k ? ", " : " -> ", f->results[k].name);
        fputs("\n", out);
    }
}

static int usage(const struct mxrt_program *p, const char *format, const char *word) {
    fprintf(stderr, "%s: ", p->name);
    fprintf(stderr, format, word);
    fprintf(stderr, "; %s --help shows how\n", p->name);
    return 2;
}

static int option(struct session *s, const char *name, const char *value) {
    int64_t *numbers[] = {&s->epochs, &s->batch, &s->steps};
    const char *number_names[] = {"--epochs", "--batch", "--steps"};
    char *end;
    errno = 0;
    for (int i = 0; i < 3; i++)
        if (strcmp(name, number_names[i]) == 0) {
            *numbers[i] = strtoll(value, &end, 10);
            if (end == value || *end || errno || *numbers[i] < (i == 1)) {
                fprintf(stderr, "%s: %s %s: expected a number%s\n", s->p->name, name, value, i == 1 ? " above 0" : "");
                return -1;
            }
            return 1;
        }
    if (strcmp(name, "--seed") == 0) {
        s->seed = strtoull(value, &end, 0);
        s->has_seed = true;
        if (end == value || *end || errno || *value == '-') {
            fprintf(stderr, "%s: --seed %s: expected a number from 0 to 2^64 - 1\n", s->p->name, value);
            return -1;
        }
        return 1;
    }
    if (strcmp(name, "--threads") == 0) {
        long n = strtol(value, &end, 10);
        if (end == value || *end || n < 0 || n > 256) {
            fprintf(stderr, "%s: --threads %s: expected a number from 0 to 256\n", s->p->name, value);
            return -1;
        }
        s->threads = (int)n;
        return 1;
    }
    int taken = ranks_option(s, name, value);
    if (taken)
        return taken;
    if (strcmp(name, "--in") == 0) {
        if (!strchr(value, '=') || s->input_count == MAX_INPUTS) {
            fprintf(stderr, "%s: --in %s: expected NAME=VALUE\n", s->p->name, value);
            return -1;
        }
        s->inputs[s->input_count++] = value;
        return 1;
    }
    const char **texts[] = {&s->data, &s->out, &s->weights, &s->call, &s->trace_path};
    const char *text_names[] = {"--data", "--out", "--weights", "--call", "--trace"};
    for (int i = 0; i < 5; i++)
        if (strcmp(name, text_names[i]) == 0) {
            *texts[i] = value;
            return 1;
        }
    return 0;
}

/* Writes the trace of what has been done; the exit status. */
static int write_trace(struct session *s, int status) {
    if (s->trace && mxrt_trace_write(s->trace, s->trace_path, &s->why) != MX_OK) {
        fprintf(stderr, "%s: error: --trace: %s\n", s->p->name, s->why.text);
        status = status ? status : 1;
    }
    mxrt_trace_free(s->trace);
    return status;
}

int mxrt_main(const struct mxrt_program *p, int argc, char **argv) {
    struct session s = {.p = p, .epochs = -1, .batch = -1, .steps = -1};
    for (int i = 1; i < argc; i++) {
        char *word = argv[i];
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            help(p, stdout);
            return 0;
        }
        if (word[0] != '-') {
            if (s.command && strcmp(s.command, "call") == 0 && !s.call)
                s.call = word;
            else if (!s.command &&
                     (strcmp(word, "train") == 0 || strcmp(word, "evaluate") == 0 || strcmp(word, "predict") == 0 ||
                      strcmp(word, "call") == 0 || strcmp(word, "exchange") == 0))
                s.command = word;
            else
                return usage(p, s.command ? "one command at a time: %s" : "there is no command %s", word);
            continue;
        }
        if (strcmp(word, "--resume") == 0) {
            s.resume = true;
        } else if (strcmp(word, "--shard") == 0) {
            s.ranks_options.shard = true;
        } else if (strcmp(word, "--quiet") == 0 || strcmp(word, "-q") == 0) {
            s.quiet = true;
        } else if (strcmp(word, "--json") == 0) {
            s.json = true;
        } else {
            char name[32];
            const char *equals = strchr(word, '=');
            size_t n = equals ? (size_t)(equals - word) : strlen(word);
            if (n >= sizeof name)
                return usage(p, "there is no option %s", word);
            memcpy(name, word, n);
            name[n] = 0;
            const char *value = equals ? equals + 1 : i + 1 < argc ? argv[i + 1] : NULL;
            int taken = option(&s, name, value ? value : "");
            if (taken == 0)
                return usage(p, "there is no option %s", word);
            if (!value)
                return usage(p, "%s needs a value", word);
            if (taken < 0)
                return 2;
            if (!equals)
                i++;
        }
    }
    int status;
    const struct mxrt_setting *seed = session_setting(&s, "seed");
    if (!s.has_seed && seed && seed->kind == MXRT_INT)
        s.seed = (uint64_t)seed->i;
    if (!s.command)
        s.command = s.call ? "call" : p->setting_count ? "train" : NULL;
    if (!s.command) {
        help(p, stderr);
        return 2;
    }
    if (strcmp(s.command, "predict") == 0)
        s.call = "predict";
    const struct mxrt_function *f = s.call ? session_function(&s, s.call) : NULL;
    if (s.call && !f)
        return usage(p, "there is no function %s", s.call);
    if (!s.call && strcmp(s.command, "call") == 0)
        return usage(p, "%s needs the name of a function", "call");
    if (!s.call && s.input_count)
        return usage(p, "--in %s belongs to predict and call", s.inputs[0]);
    if (s.trace_path && mxrt_trace_create(&s.trace, &s.why) != MX_OK) {
        fprintf(stderr, "%s: error: --trace: %s\n", p->name, s.why.text);
        return 1;
    }
    if (f) {
        int64_t begin = mxrt_trace_begin(s.trace);
        status = call_command(&s, f);
        mxrt_trace_end(s.trace, begin, f->name);
    } else if (strcmp(s.command, "exchange") == 0) {
        status = exchange_command(&s);
    } else {
        status = strcmp(s.command, "evaluate") == 0 ? evaluate_command(&s) : over_ranks(&s);
    }
    session_close(&s);
    status = write_trace(&s, status);
    if (fflush(stdout) != 0 && status == 0)
        status = 1;
    return status;
}
