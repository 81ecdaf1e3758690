/* Files as C text, for the build.
 *
 *   embed NAME FILE… > out.h         static const char NAME[] = "…"; one file behind the other
 *   embed -l NAME ROOT FILE… > out.h static const struct { const char *name, *text; } NAME[] = { {"nn/conv.mxl", "…"}, …, {0, 0} };
 *                                    where the names are the files' paths below the folder named ROOT
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* A file as string literals, one a line, which the compiler joins. */
static int print_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return 1;
    }
    printf("    \"");
    for (int c; (c = getc(f)) != EOF;) {
        if (c == '\n')
            printf("\\n\"\n    \"");
        else if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 32 || c > 126 || c == '?')
            printf("\\%03o", (unsigned)c);
        else
            putchar(c);
    }
    printf("\"");
    fclose(f);
    return 0;
}

int main(int argc, char **argv) {
    bool list = argc > 1 && strcmp(argv[1], "-l") == 0;
    if (argc >= 3 && !list) {
        printf("/* Made by tools/embed. */\nstatic const char %s[] =\n", argv[1]);
        for (int i = 2; i < argc; i++) {
            if (print_file(argv[i]))
                return 1;
            printf("\n");
        }
        printf(";\n");
    } else if (argc >= 4) {
        size_t root = strlen(argv[3]);
        printf("/* Made by tools/embed. */\nstatic const struct {\n    const char *name, *text;\n} %s[] = {\n",
               argv[2]);
        for (int i = 4; i < argc; i++) {
            const char *name = argv[i];
            for (const char *at = name; root && (at = strstr(at, argv[3])); at++)
                if (at[root] == '/') /* the last folder of that name */
                    name = at + root + 1;
            printf("    {\"%s\",\n", name);
            if (print_file(argv[i]))
                return 1;
            printf("},\n");
        }
        printf("    {0, 0},\n};\n");
    } else {
        fprintf(stderr, "usage: embed NAME FILE... > out.h\n       embed -l NAME ROOT FILE... > out.h\n");
        return 2;
    }
    return fflush(stdout) != 0;
}
