/* Two generated models in a program of one's own, without their command line.
 *
 * `novelty` learns here, from images that this program holds in memory: it will say which images are unlike them. `digits` was trained
 * before by its own program; its checkpoint is loaded, and it reads the images that are not strange.
 *
 *     ./embed ../digits.csv digits-run/checkpoint.safetensors
 */
#include <stdio.h>
#include <stdlib.h>

#include "digits.h"
#include "novelty.h"

enum { PIXELS = 64, BATCH = 64, LEARN = 1200, EPOCHS = 40, CLASSES = 10, NOISE = 100, ROOM = 4096 };

struct images {
    int count;
    float pixels[ROOM][PIXELS]; /* from 0 to 1 */
    int label[ROOM];
};

/* Lines of 64 pixels from 0 to 16 and a label. Returns 0 when the file cannot be read. */
static int read_images(struct images *images, const char *path) {
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    while (images->count < ROOM) {
        int shade, good = 1;
        for (int i = 0; i < PIXELS && good; i++) {
            good = fscanf(f, "%d,", &shade) == 1;
            images->pixels[images->count][i] = (float)shade / 16;
        }
        if (!good || fscanf(f, "%d", &images->label[images->count]) != 1)
            break;
        images->count++;
    }
    fclose(f);
    return images->count > 0;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The loop that `mxcc build --main` would write: epochs of batches, with the rate falling to 0. */
static mx_status learn(novelty *m, const struct images *images) {
    float loss = 0;
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        for (int at = 0; at < LEARN; at += BATCH) {
            int n = LEARN - at < BATCH ? LEARN - at : BATCH;
            float rate = 3e-3f * (1 - (float)epoch / EPOCHS);
            mx_status s = novelty_step(m, n, images->pixels[at], rate, &loss);
            if (s != MX_OK)
                return s;
        }
        if (epoch % 10 == 9)
            printf("novelty, epoch %d: loss %.4f\n", epoch + 1, loss);
    }
    return MX_OK;
}

static mx_status distances(novelty *m, int n, const float (*pixels)[PIXELS], float *out) {
    mx_status s = MX_OK;
    for (int at = 0; at < n && s == MX_OK; at += BATCH)
        s = novelty_distance(m, n - at < BATCH ? n - at : BATCH, pixels[at], out + at);
    return s;
}

static struct images images;

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s digits.csv checkpoint.safetensors\n", argv[0]);
        return 2;
    }
    if (!read_images(&images, argv[1]) || images.count <= LEARN) {
        fprintf(stderr, "%s: cannot be read, or fewer than %d images\n", argv[1], LEARN + 1);
        return 1;
    }

    /* One model in memory that this program gives, one in memory of its own. */
    static union {
        max_align_t align;
        unsigned char bytes[NOVELTY_MEMORY_BYTES];
    } memory;
    novelty *strange = NULL;
    digits *reader = NULL;
    novelty_options options = {.seed = 1};
    if (novelty_init(&strange, &memory, sizeof memory, &options) != MX_OK ||
        digits_init(&reader, NULL, 0, NULL) != MX_OK) {
        fprintf(stderr, "no memory for the models\n");
        return 1;
    }
    int status = 1;
    if (digits_load(reader, argv[2]) != MX_OK) {
        fprintf(stderr, "%s\n", digits_error(reader));
        goto out;
    }

    /* What 99 of 100 of the images it learned from stay below is usual. */
    static float distance[ROOM];
    if (learn(strange, &images) != MX_OK || distances(strange, LEARN, images.pixels, distance) != MX_OK) {
        fprintf(stderr, "%s\n", novelty_error(strange));
        goto out;
    }
    qsort(distance, LEARN, sizeof *distance, ascending);
    float limit = distance[LEARN - LEARN / 100];

    /* The images it has not seen, and images of noise among them. */
    int rest = images.count - LEARN, usual = 0, right = 0, found = 0;
    static float noise[NOISE][PIXELS], scores[BATCH][CLASSES];
    for (int i = 0; i < NOISE * PIXELS; i++)
        noise[i / PIXELS][i % PIXELS] = (float)(rand() % 17) / 16;
    if (distances(strange, rest, images.pixels + LEARN, distance) != MX_OK ||
        distances(strange, NOISE, noise, distance + rest) != MX_OK) {
        fprintf(stderr, "%s\n", novelty_error(strange));
        goto out;
    }
    for (int i = 0; i < NOISE; i++)
        found += distance[rest + i] > limit;
    for (int at = 0; at < rest; at += BATCH) {
        int n = rest - at < BATCH ? rest - at : BATCH;
        if (digits_predict(reader, n, images.pixels[LEARN + at], scores[0]) != MX_OK) {
            fprintf(stderr, "%s\n", digits_error(reader));
            goto out;
        }
        for (int i = 0; i < n; i++) {
            int best = 0;
            for (int k = 1; k < CLASSES; k++)
                if (scores[i][k] > scores[i][best])
                    best = k;
            if (distance[at + i] > limit)
                continue;
            usual++;
            right += best == images.label[LEARN + at + i];
        }
    }
    printf(
        "%d of %d new images look usual; digits reads %d of them right; %d of %d images of noise are found strange\n",
        usual, rest, right, found, NOISE);
    status = 0;
out:
    novelty_free(strange);
    digits_free(reader);
    return status;
}
