/* `mxcc run`: the program's command line over the eager interpreter. */
#include "driver/driver.h"
#include "driver/eager_program.h"

int run_command(int argc, char **argv) {
    struct options o;
    struct pipeline p;
    if (!options_parse(&o, 'r', argc, argv))
        return EXIT_USAGE;
    if (!pipeline_load(&p, &o, o.inputs.at[0]) || !pipeline_precision(&p))
        return pipeline_end(&p, false);
    print_diagnostics(&o, &p.diag);
    struct mxrt_program program = eager_program(p.module);
    char **args = ARENA_ARRAY(&o.arena, char *, o.rest.n + 2);
    args[0] = argv[0];
    for (int i = 0; i < o.rest.n; i++)
        args[i + 1] = o.rest.at[i];
    int status = mxrt_main(&program, o.rest.n + 1, args);
    ir_module_free(p.module);
    diag_free(&p.diag);
    arena_free(&o.arena);
    return status;
}
