/* A C program of one's own around a generated unit: loads what `digits` trained and reads a few digits.
 *
 *     mxcc samples/digits.mxl -o digits.c
 *     cc digits_predict.c digits.c -lm -o predict
 *     ./predict digits-run/checkpoint.safetensors digits.csv 12 345 1777       (lines of the file)
 */
#include <stdio.h>
#include <stdlib.h>

#include "digits.h"

/* Line `wanted` (from 1) of the data: 64 pixels from 0 to 16 and the digit. 0 when there is none. */
static int read_digit(const char *path, int wanted, float *pixels, int *digit) {
    char line[1024], *at = line;
    FILE *f = fopen(path, "r");
    int i;
    if (!f)
        return 0;
    for (i = 0; i < wanted; i++)
        if (!fgets(line, sizeof line, f)) {
            (void)fclose(f);
            return 0;
        }
    (void)fclose(f);
    for (i = 0; i < 64; i++)
        pixels[i] = (float)strtol(*at == ',' ? at + 1 : at, &at, 10) / 16.0f;
    *digit = (int)strtol(*at == ',' ? at + 1 : at, NULL, 10);
    return 1;
}

static void draw(const float *pixels) {
    static const char shades[] = " .:-=+*#%@";
    for (int row = 0; row < 8; row++) {
        printf("      ");
        for (int column = 0; column < 8; column++) {
            char c = shades[(int)(pixels[8 * row + column] * 9.0f + 0.5f)];
            putchar(c);
            putchar(c);
        }
        putchar('\n');
    }
}

int main(int argc, char **argv) {
    static unsigned char memory[DIGITS_MEMORY_BYTES]; /* the unit allocates nothing */
    digits *m;
    if (argc < 4) {
        fprintf(stderr, "usage: predict CHECKPOINT digits.csv LINE…\n");
        return 2;
    }
    if (digits_init(&m, memory, sizeof memory, NULL) != MX_OK)
        return 1;
    if (digits_load(m, argv[1]) != MX_OK) {
        fprintf(stderr, "predict: %s\n", digits_error(m));
        return 1;
    }
    for (int i = 3; i < argc; i++) {
        float pixels[64], chance[10];
        int digit, best = 0;
        if (!read_digit(argv[2], atoi(argv[i]), pixels, &digit)) {
            fprintf(stderr, "predict: %s has no line %s\n", argv[2], argv[i]);
            return 1;
        }
        if (digits_predict(m, 1, pixels, chance) != MX_OK) {
            fprintf(stderr, "predict: %s\n", digits_error(m));
            return 1;
        }
        for (int k = 1; k < 10; k++)
            if (chance[k] > chance[best])
                best = k;
        draw(pixels);
        printf("      read as %d (%.1f%%), written as %d\n\n", best, 100.0 * (double)chance[best], digit);
    }
    digits_free(m);
    return 0;
}
