/* The syntax tree of a .mxl file: what the parser hands to elaboration, the formatter and the documentation.
 *
 * Nodes live in the arena given to `parse`; strings are interned nowhere (compare with strcmp). Types are expressions:
 * `f32[N <= 64, ..S]` is an INDEX of NAME f32 by COMPARE and SPLICE subscripts.
 */

/* Laid out by hand. */
/* clang-format off */
#ifndef MXCC_FRONTEND_AST_H
#define MXCC_FRONTEND_AST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/diag.h"

enum expr_kind {
    EXPR_INT,     /* 1, 0x1f */
    EXPR_FLOAT,   /* 0.5, 1e-3 (inf, nan and pi are names) */
    EXPR_BOOL,    /* true, false */
    EXPR_NONE,    /* none */
    EXPR_STRING,  /* "text", escapes resolved */
    EXPR_NAME,
    EXPR_LIST,    /* [a, ..b, c] */
    EXPR_LISTCOMP, /* [e for PATTERN in ITER if COND] */
    EXPR_CALL,    /* f(a, name = b, inout c, ..d) */
    EXPR_INDEX,   /* a[subscripts] */
    EXPR_MEMBER,  /* a.name; `name` may be a number after a list of blocks: net.stages.0 */
    EXPR_UNARY,   /* - + not ~ */
    EXPR_BINARY,  /* arithmetic, comparison, `and or in`, `not in` is UNARY not of it */
    EXPR_RANGE,   /* a..b */
    EXPR_SPLICE,  /* ..e in lists, calls, types and indices */
    EXPR_GUARD,   /* a[i] else 0 */
    EXPR_COMPREHENSION, /* tensor[i < M] BODY, sum[k < K] BODY: index notation */
    EXPR_ERROR,   /* a part that did not parse; already reported: elaboration stays silent about it */
};

enum binary_op {
    BIN_ADD, BIN_SUB, BIN_MUL, BIN_DIV, BIN_MOD, BIN_POW, BIN_MATMUL,
    BIN_EQ, BIN_NE, BIN_LT, BIN_LE, BIN_GT, BIN_GE,
    BIN_AND, BIN_OR, BIN_IN,
    BIN_BITAND, BIN_BITOR, BIN_BITXOR, BIN_SHL, BIN_SHR,
};
enum unary_op { UN_NEG, UN_POS, UN_NOT, UN_BITNOT };

struct ast_arg { /* of a call */
    const char *name; /* NULL: by position */
    struct ast_expr *value; /* SPLICE for ..xs */
    bool is_inout;
    struct span span;
};

enum subscript_kind { SUB_INDEX, SUB_SLICE, SUB_ELLIPSIS, SUB_NEWAXIS, SUB_SPLICE };
struct ast_subscript {
    enum subscript_kind kind;
    struct ast_expr *index;            /* INDEX and SPLICE (without its `..`) */
    struct ast_expr *lo, *hi, *step;   /* SLICE; each may be NULL */
    struct span span;
};

/* `i < M`, `..i < S`, `j in 0..i + 1`, `..k in a .. b` */
struct ast_index {
    const char *name;
    bool is_run;
    struct ast_expr *bound; /* `<`: the exclusive upper end; `in`: an EXPR_RANGE (or a list for a run) */
    bool is_in;
    struct span span;
};

/* Names that take values apart: `x`, `(a, inout b)`. */
struct ast_pattern {
    struct ast_name {
        const char *name;
        bool is_inout;
        struct span span;
    } *names;
    int count;
    bool parenthesized; /* `(a, b)`: one value taken apart */
    struct span span;
};

struct ast_expr {
    enum expr_kind kind;
    uint16_t height; /* longest path to a leaf; the parser keeps it at 500 or less, so that walks may recurse */
    struct span span;
    union {
        int64_t integer;  /* INT; larger than INT64_MAX is a parse error unless it fits u64 (then bits) */
        double number;    /* FLOAT */
        bool boolean;
        const char *string; /* STRING and NAME */
        struct { struct ast_expr **items; int count; } list;
        struct { struct ast_expr *value, *iter, *cond; struct ast_pattern pattern; } listcomp;
        struct { struct ast_expr *callee; struct ast_arg *args; int count; } call;
        struct { struct ast_expr *base; struct ast_subscript *subs; int count; } index;
        struct { struct ast_expr *base; const char *name; struct span name_span; } member;
        struct { enum unary_op op; struct ast_expr *arg; } unary;
        struct { enum binary_op op; struct ast_expr *left, *right; struct span op_span; } binary;
        struct { struct ast_expr *lo, *hi; } range;
        struct { struct ast_expr *value; } splice;
        struct { struct ast_expr *base, *otherwise; } guard; /* base is an INDEX */
        struct {
            const char *what; /* "tensor" or the reduction: "sum" "prod" "max" "min" "any" "all" "mean" "argmax" "argmin" */
            struct ast_index *indices;
            int count;
            struct ast_expr *body;      /* exactly one of body and block is set */
            struct ast_block_body *block; /* `{ let …; return e }` */
        } comp;
    };
};

struct ast_block_body { /* `{ … }` */
    struct ast_stmt **stmts;
    int count;
    struct span span; /* braces included */
};

enum stmt_kind {
    STMT_LET,        /* let a, b = e */
    STMT_VAR,        /* var a: T = e */
    STMT_ASSIGN,     /* target op= value; `a, b = f(x)` has several targets. In a block or file also: an instance */
    STMT_EXPR,       /* a call */
    STMT_FOR,
    STMT_WHILE,
    STMT_IF,
    STMT_RETURN,
    STMT_ASSERT,
    STMT_CHECKPOINT, /* checkpoint { … } */
    STMT_DECL,       /* a declaration where declarations may stand */
    STMT_ERROR,
};

struct ast_stmt {
    enum stmt_kind kind;
    struct span span;
    const char *doc; /* `///` lines above, joined; NULL if none */
    union {
        struct { struct ast_pattern names; struct ast_expr *type, *value; } let; /* LET and VAR; type only for VAR (also `let x: T`) */
        struct {
            struct ast_expr **targets; /* NAME, INDEX or MEMBER expressions */
            int count;
            bool has_op; /* += etc.: op is the BINARY operator */
            enum binary_op op;
            struct ast_expr *value;
        } assign;
        struct ast_expr *expr;
        struct { bool unroll; struct ast_pattern pattern; struct ast_expr *iter, *limit; struct ast_block_body *body; } for_; /* `for t in a..b <= limit` */
        struct { struct ast_expr *cond, *limit; struct ast_block_body *body; } while_;
        struct { struct ast_expr *cond; struct ast_block_body *then, *otherwise; } if_; /* `else if`: a body of one IF */
        struct { struct ast_expr **values; int count; } ret;
        struct { struct ast_expr *cond, *message; } assert_;
        struct ast_block_body *body; /* CHECKPOINT */
        struct ast_decl *decl;
    };
};

enum decl_kind {
    DECL_USE,    /* use nn; use "layers.mxl" as layers */
    DECL_CONST,  /* const name = e */
    DECL_PARAM,  /* param name: T = e */
    DECL_STATE,
    DECL_FN,
    DECL_BLOCK,
    DECL_EXTERN, /* extern "filters.h" { fn … } */
    DECL_TRAIN,  /* train { key = e … } */
};

struct ast_param { /* of a function or block */
    const char *name;
    struct ast_expr *type;    /* NULL: takes anything */
    struct ast_expr *initial; /* default; NULL if none */
    bool is_inout;
    struct span span;
};

struct ast_result {
    const char *name; /* NULL if unnamed */
    struct ast_expr *type;
    struct span span;
};

struct ast_annotation { /* @onnx("DepthToSpace", since = 13) */
    const char *name;
    struct ast_arg *args;
    int count;
    struct span span;
};

struct ast_fn {
    bool is_export, is_train, is_incremental, is_kernel;
    struct ast_param *params;
    int param_count;
    bool has_results; /* `->` was written */
    struct ast_result *results;
    int result_count;
    struct ast_block_body *body;     /* NULL with `= e1, e2` */
    struct ast_expr **values;        /* `= e1, e2`; for extern the C call */
    int value_count;
    const char **gradient_names;     /* gradient(x, y, dy) { … }; NULL if none */
    int gradient_count;
    struct ast_block_body *gradient;
    struct span gradient_span;
};

struct ast_decl {
    enum decl_kind kind;
    struct span span;
    struct span name_span;
    const char *name; /* USE: the name it is known by; EXTERN: the header's path; TRAIN: NULL */
    const char *doc;
    struct ast_annotation *annotations;
    int annotation_count;
    union {
        struct { const char *path; bool is_file; } use;
        struct { struct ast_expr *type, *value; } variable; /* CONST, PARAM, STATE */
        struct ast_fn fn;
        struct { struct ast_param *params; int param_count; struct ast_block_body *body; } block;
        struct { struct ast_decl **fns; int count; } extern_;
        struct { struct ast_stmt **settings; int count; } train; /* ASSIGN statements with a NAME target */
    };
};

struct ast_file {
    const struct source *source;
    struct ast_stmt **stmts; /* DECL and ASSIGN (instances), IF (static), LET, ASSERT, … in order */
    int count;
    const char *doc;
};

/* Parses one file. Always returns a tree (with ERROR nodes where something was reported to `diag`). */
struct ast_file *parse_file(struct arena *arena, struct diag *diag, const struct source *source);
/* The tree as text, one node a line: `mxcc --emit ast`. */
struct text;
void ast_print(struct text *out, const struct ast_file *file);
/* `mxcc fmt`: the same program laid out anew, comments kept. Needs a file without syntax errors. Idempotent. */
void format_file(struct text *out, struct diag *diag, const struct source *source);
/* `mxcc doc`: Markdown from doc comments and signatures. */
void document_file(struct text *out, const struct ast_file *file);

#endif
