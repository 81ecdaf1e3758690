/* What the files of the printer share: print.c, print_expr.c, print_parallel.c, scope.c. */
#ifndef MXCC_CODEGEN_C_PRINT_INTERNAL_H
#define MXCC_CODEGEN_C_PRINT_INTERNAL_H

#include "codegen/c/c_internal.h"

/* Precedences, for cprint_expr: what an expression binds more loosely than stands in brackets. */
enum { P_COMMA, P_COND, P_OR, P_AND, P_BITOR, P_XOR, P_BITAND, P_EQ, P_LT, P_SHIFT, P_ADD, P_MUL, P_UNARY, P_POST };

static inline void cprint_add(struct cprint *p, const char *s) {
    text_add(p->out, s);
}
void cprint_indent(struct cprint *p);
void cprint_var(struct cprint *p, lx e);
/* The element of m at an index, or the `lanes` elements from there. */
void cprint_subscript(struct cprint *p, const struct loop_mem *m, lx at, int lanes);
/* Index arithmetic with the counters of expanded loops replaced by their values, folded again. */
lx cprint_substitute(struct cprint *p, lx e);
/* What is stored as f16 or bf16: the conversion to bits rounds, so a cast to the type has nothing to do. */
lx cprint_before_rounding(lx e, enum dtype t);
void cprint_parallel(struct cprint *p, const struct loop_stmt *s);
/* A name of the printer's own that nothing in scope has: arguments keep whatever names they have. */
const char *cgen_own_name(struct cgen *g, const char *wanted);

#endif
