/* Elaboration, internally: the values that expressions have, the scopes names live in, and the mutable cells that
 * become SSA versions. Public entry: frontend/elaborate.h.
 *
 * A rank-0 run-time value is kept as a scalar expression (VAL_SCALAR) until something needs it in memory, so that
 * `pos + 4 - pos` is seen to be 4. Expressions under construction name index variables and loaded values by numbers
 * that are unique in the function (`struct elab_index`, `e->slots`); forming a nest renumbers them.
 */
#ifndef MXCC_FRONTEND_ELAB_H
#define MXCC_FRONTEND_ELAB_H

#include "frontend/ast.h"
#include "frontend/elaborate.h"
#include "ir/ir.h"

/* ---- values ----------------------------------------------------------------------------------------------------- */

enum val_kind {
    VAL_ERROR, /* already reported: operations on it stay silent */
    VAL_NONE,
    VAL_INT,
    VAL_DIM, /* an integer known up to dimension symbols */
    VAL_FLOAT,
    VAL_BOOL,
    VAL_STRING,
    VAL_LIST,
    VAL_DTYPE,
    VAL_TYPE, /* f32[2, 3] as an expression */
    VAL_FN,
    VAL_BUILTIN,
    VAL_CLASS, /* a block declaration */
    VAL_BLOCK, /* an instance */
    VAL_MODULE,
    VAL_BUFFER, /* a param or state: stands for its current version, carries name and shape */
    VAL_SCALAR, /* a rank-0 run-time value as an expression */
    VAL_TENSOR,
    VAL_LAZY,  /* inside index notation: a tensor that depends on index variables; elements are made on demand */
    VAL_RANGE, /* a..b with a run-time end */
    VAL_TUPLE, /* several results */
    VAL_DATA,  /* a constant tensor from a file: becomes a TENSOR in each function that uses it */
};

struct cell;
struct scope;
struct val;
struct val_list {
    int count;
    struct val *items;
};

struct val {
    enum val_kind kind;
    bool flex;     /* SCALAR: a loop or index variable (or arithmetic on them): takes the other side's type */
    bool quotient; /* INT, DIM, flex SCALAR: made by an integer division: becomes a float only by a cast */
    union {
        int64_t i;
        ir_dim dim;
        double f;
        bool b;
        const char *s;
        struct val_list *list; /* LIST, TUPLE */
        enum dtype dtype;
        const struct ir_type *type;
        struct elab_fn *fn;
        const struct elab_builtin *builtin;
        struct elab_class *class_;
        struct instance *block;
        struct scope *module;
        struct cell *cell; /* BUFFER */
        ir_expr expr;      /* SCALAR */
        struct ir_value *value;
        struct lazy *lazy;
        struct val_range *range;
        const struct file_data *data;
    };
};

struct file_data {
    struct ir_type type;
    const void *bytes;
    const char *name;
};

struct val_range {
    struct val lo, hi;
};

/* Index dependent tensors: either a tensor with some axes already indexed, or scalars. */
struct lazy {
    enum dtype dtype;
    int rank;
    const ir_dim *dims;
    struct ir_value *base; /* partial load: at[base rank], NULL where an axis is left */
    const ir_expr *at;
    ir_expr otherwise;
    struct val *elements; /* [count], row-major; dims are constants */
    int64_t count;
};

/* A name that can be assigned: a var, a result of inout binding, a param or state. */
struct cell {
    const char *name;
    bool is_var;              /* else let or a parameter: assigning is an error */
    bool typed;               /* var with a type: assignments broadcast to it */
    struct ir_type type;      /* of typed cells and buffers */
    struct val value;         /* current version (not for buffers not yet read in this function) */
    struct ir_buffer *buffer; /* param or state */
    struct instance *owner;   /* of buffers */
    const struct ast_expr *initial;
    struct scope *initial_scope;
    int versions;
    struct span span;
    struct span written; /* the statement that assigned it last */
    struct cell *alias;  /* inout: the caller's cell */
    struct frame *home;  /* the region it was made in: only regions inside that see it as something from outside */
};

struct binding {
    struct binding *next;
    const char *name;
    struct val value;
    struct cell *cell; /* set: reads go through it */
    bool used;
    struct span span;
    int order;
    /* A file-level or block-level function and class: not evaluated until used. */
};

struct scope {
    struct scope *parent;
    struct binding *first, **last;
    struct binding **table; /* hash, for large scopes */
    int table_size, count;
    struct instance *instance; /* the scope of a block's members */
    const char *path;          /* file scopes: the module's path */
    bool is_function;          /* the outermost scope of a function's body: parameters */
};

struct elab_fn {
    const char *name;
    const struct ast_decl *decl;
    struct scope *scope; /* where it was declared */
    const char *header;  /* extern */
};

struct elab_class {
    const char *name;
    const struct ast_decl *decl;
    struct scope *scope;
};

struct instance {
    struct elab_class *class_;
    struct scope *scope; /* members; its parent holds the parameters */
    struct instance *owner;
    const char *name; /* within its owner, "stages.0"; NULL until bound */
    int serial;
};

/* ---- index notation and regions under construction --------------------------------------------------------------- */

struct elab_index {
    const char *name;
    bool reduction;
    ir_dim extent;            /* parallel; reduction: upper bound of hi */
    ir_expr lo, hi;           /* reduction (virtual numbering) */
    struct ir_value *counter; /* a loop's counter: an index only for proofs, else a loaded value */
};

struct pending_check {
    ir_expr index; /* index check: 0 <= index < extent; NULL: `condition` must hold */
    ir_dim extent;
    ir_expr condition;
    struct span span;
    enum error_code code; /* where it certainly fails */
    const char *message;
};

/* A comprehension being elaborated. */
struct body {
    struct body *outer;
    bool notation; /* opened by index notation; else it only collects checks */
    VEC(struct pending_check) checks;
    VEC(struct ir_value *) tokens;
};

enum frame_kind { FRAME_BRANCH, FRAME_FOR, FRAME_WHILE_COND, FRAME_WHILE_BODY };

struct journal_entry {
    struct cell *cell;
    struct val before;    /* value at entry of the region */
    struct ir_value *arg; /* loops: the region's argument standing for it */
    bool assigned;
    bool spoiled; /* loops: after an error its value at the end of an iteration is unknown */
};

/* A region being elaborated: what it changed. */
struct frame {
    struct frame *outer;
    enum frame_kind kind;
    struct ir_region *region;
    VEC(struct journal_entry) journal;
    struct ir_value *counter; /* FOR */
};

struct call_frame {
    struct call_frame *outer;
    const char *what; /* "Net.forward" */
    const char *hint; /* a name for what it computes: "conv1", "relu" */
    struct span call;
};

struct replaced_value {
    struct ir_value *from, *to;
};
struct dim_pair {
    ir_dim a, b;
};

/* A length found at run time: the same one again has the same symbol. */
struct found_length {
    ir_expr length;
    struct ir_symbol *symbol;
};

struct elab {
    struct arena *arena; /* the module's */
    struct diag *diag;
    struct ir_module *module;
    const struct elaborate_options *options;
    struct scope *prelude; /* built-in names, then stdlib/math.mxl */
    struct scope *file;
    struct {
        const char *path;
        struct scope *scope;
        bool loading;
    } modules[64];
    int module_count;

    /* The function being elaborated. */
    struct ir_func *func;
    struct ir_builder b;
    bool in_function; /* false: file or block level: no run-time values */
    bool training;
    struct body *body;   /* innermost comprehension */
    struct frame *frame; /* innermost region */
    struct call_frame *stack;
    int depth;
    VEC(struct elab_index) indices;
    VEC(struct ir_value *) slots; /* slot -> value */
    VEC(int) slot_of;             /* value id -> slot + 1 */
    VEC(struct cell *) touched;   /* buffers read in this function */
    VEC(struct replaced_value) replaced;
    VEC(struct found_length) lengths;
    VEC(struct cell *) buffers; /* all */
    VEC(struct dim_pair) entry_checks;
    int instance_serial, rng_places;
    int64_t work;   /* expressions elaborated and list entries made: a bound against endless programs */
    int defaults;   /* default arguments being evaluated, one inside the other */
    bool exhausted; /* work is over MOST_WORK, which was reported */
    bool gave_up;
    struct val result; /* of the innermost function body, once `return` was met */
    bool returned;
    const struct ast_fn *current_fn;
    struct
        gradient_frame { /* gradients being elaborated: a call of the same function there has no gradient of its own */
        struct gradient_frame *outer;
        const struct ast_fn *fn;
    } * gradients;
    /* init */
    bool silent;             /* errors are not reported: trial evaluation */
    VEC(struct span) blamed; /* calls of the library inside which an error was reported */
    int failures;            /* errors met, those that were reported before among them */
};

enum { LONGEST_LIST = 65536, LONGEST_STRING = 1 << 20, MOST_WORK = 10000000 };

/* ---- elab_value.c --------------------------------------------------------------------------------------------------- */

extern const struct val val_error, val_none;
struct val val_int(int64_t i);
struct val val_float(double f);
struct val val_bool(bool b);
struct val val_string(const char *s);
struct val val_dim(struct elab *e, ir_dim d); /* INT if constant */
struct val val_tensor(struct ir_value *v);    /* rank 0 becomes a SCALAR: needs the elab's slots */
struct val val_scalar(ir_expr x);
struct val val_list_new(struct elab *e, int count);
struct val val_type(struct elab *e, struct ir_type t);
bool val_is_static(struct val v);
bool val_is_number(struct val v);  /* INT, DIM, FLOAT */
bool val_is_runtime(struct val v); /* SCALAR, TENSOR, LAZY, BUFFER */
/* "f32[N, 10]", "int 3", "a list of 4", "block Dense": for messages. */
const char *val_describe(struct elab *e, struct val v);
const char *type_text(struct elab *e, struct ir_type t);
const char *dim_text(struct elab *e, ir_dim d);
bool val_as_dim(struct elab *e, struct val v, ir_dim *d);                  /* INT and DIM */
bool val_equal(struct elab *e, struct val a, struct val b, bool *decided); /* static values, whole */

/* ---- elab_scope.c --------------------------------------------------------------------------------------------------- */

struct scope *scope_new(struct elab *e, struct scope *parent);
struct binding *scope_find_here(struct scope *s, const char *name);
struct binding *scope_find(struct scope *s, const char *name);
struct binding *scope_bind(struct elab *e, struct scope *s, const char *name, struct val v, struct span at);
struct cell *cell_new(struct elab *e, const char *name, struct span at);
struct binding *scope_bind_cell(struct elab *e, struct scope *s, const char *name, struct cell *c);
struct val cell_read(struct elab *e, struct cell *c);
void cell_write(struct elab *e, struct cell *c, struct val v);
struct val binding_read(struct elab *e, struct binding *b);
/* The name in scope most like `name`, for "did you mean". NULL if none is near. */
const char *scope_similar(struct elab *e, struct scope *s, const char *name);

/* ---- elab_expr.c ---------------------------------------------------------------------------------------------------- */

struct val elab_expr(struct elab *e, struct scope *s, const struct ast_expr *x);
/* Counts work; false when elaboration has had more than enough, which is reported once. */
bool elab_spend(struct elab *e, int64_t amount, struct span at);
struct val elab_binary(struct elab *e, enum binary_op op, struct val a, struct val b, struct span at);
struct val elab_unary(struct elab *e, enum unary_op op, struct val a, struct span at);
/* Evaluates a condition: 1 or 0 if static, -1 run-time (value in *runtime), -2 after an error. */
int elab_condition(struct elab *e, struct scope *s, const struct ast_expr *x, struct val *runtime);
struct val elab_member(struct elab *e, struct val base, const char *name, struct span at);
/* The list of values a static iteration visits; false after an error. Ranges with run-time ends are not static. */
bool elab_items(struct elab *e, struct val v, struct val_list **items, struct span at);
bool bind_pattern(struct elab *e, struct scope *s, const struct ast_pattern *p, struct val v);

/* ---- elab_fit.c, elab_map.c, elab_reduce.c, elab_arrange.c: values that exist at run time -------------------------- */

struct ir_type val_runtime_type(struct elab *e, struct val v); /* SCALAR, TENSOR, LAZY, BUFFER */
int elab_slot(struct elab *e, struct ir_value *v);
struct val elab_from_value(struct elab *e, struct ir_value *v); /* TENSOR, or SCALAR for rank 0 */
/* v in memory. Untyped numbers take `t` (or their own default: i64, f32, with DTYPE_COUNT). NULL after an error. */
struct ir_value *elab_materialize(struct elab *e, struct val v, enum dtype t, struct span at);
/* Converts an untyped or static value to dtype t as the language allows without a cast. */
struct val elab_fit(struct elab *e, struct val v, enum dtype t, struct span at);
/* A scalar expression of a rank-0 value of dtype t (DTYPE_COUNT: its own). NULL after an error. */
ir_expr elab_scalar(struct elab *e, struct val v, enum dtype t, struct span at);
struct val elab_cast(struct elab *e, enum dtype t, struct val v, struct span at);
struct val elab_bitcast(struct elab *e, enum dtype t, struct val v, struct span at);
/* Elementwise call with broadcasting. */
struct val elab_map(struct elab *e, enum scalar_fn fn, struct val *args, int n, struct span at, struct span *arg_spans);
/* Pieces of these that the four files share. */
bool dim_is_one(ir_dim d);
ir_expr elab_broadcast_load(struct elab *e, struct ir_value *v, int rank, const int *pars);
ir_expr elab_hoisted(struct elab *e, ir_expr x,
                     struct span at); /* heavy index-free scalar parts, computed before the nest */
bool elab_lazy_elements(struct elab *e, struct lazy *l, struct span at);
struct val elab_matmul(struct elab *e, struct val a, struct val b, struct span at);
/* Broadcast to a type (assignment to typed vars, buffers, slices). NULL after an error. */
struct ir_value *elab_broadcast(struct elab *e, struct val v, struct ir_type t, struct span at, const char *what);
struct val elab_reduce(struct elab *e, const char *what, struct val v, struct val axis, bool keepdims, struct span at);
struct val elab_reshape(struct elab *e, struct val v, struct val shape, struct span at);
struct val elab_transpose(struct elab *e, struct val v, const int *perm, struct span at);
/* One tensor of a list's entries, along `axis` or stacked (-1); numbers take the type of the typed entries, else `beside`. */
struct val elab_concat(struct elab *e, struct val_list *xs, int axis, enum dtype beside, struct span at);
struct val elab_full(struct elab *e, struct ir_type t, struct val v, struct span at);
/* Equal dimensions: proven, or an entry check is recorded; false after an error was reported by the caller (nothing is
 * reported here) when they certainly differ. */
bool elab_dims_equal(struct elab *e, ir_dim a, ir_dim b, struct span at);
/* A run-time length as a dimension: makes a `dim` operation; bounds are inclusive. */
ir_dim elab_runtime_dim(struct elab *e, ir_expr length, int64_t lo, int64_t hi, const char *name, struct span at);
/* hi - lo where both cancel to something static. */
bool elab_linear_difference(struct elab *e, ir_expr hi, ir_expr lo, ir_dim *difference);
/* A check, or pending in a body; an error of this code where it certainly fails. */
void elab_require(struct elab *e, ir_expr condition, struct span at, enum error_code code, const char *message);

/* ---- elab_nest.c: from virtual numbering to nests ----------------------------------------------------------------- */

/* A nest over the index variables `pars` (numbers in e->indices), in that order, and reduction indices `reds`. Each of values is an
 * expression in virtual numbering. */
struct nest_spec {
    const int *pars;
    int par_count;
    const int *reds;
    int red_count;
    enum reduce_op op;     /* if red_count > 0 */
    ir_expr body;          /* the accumulator's body, or the value */
    ir_expr result;        /* over X_ACC 0; NULL: ACC 0 itself */
    struct ir_value *base; /* update nests */
    enum combine combine;
    const ir_expr *target;
    const char *name;
    struct span span;
};
struct ir_value *elab_form_nest(struct elab *e, const struct nest_spec *n, struct body *checks);
int elab_new_index(struct elab *e, const char *name, ir_dim extent);
void elab_load_checks(struct elab *e, struct ir_value *v, const ir_expr *at, struct span span, const char *what);
enum inside elab_prove_check(struct elab *e, const struct pending_check *c); /* whether it surely holds, or fails */
/* The checks recorded in a finished body at program level, where no comprehension is open. */
struct body *elab_body_open(struct elab *e);
void elab_body_settle(struct elab *e, struct body *b); /* proves or emits what was recorded */
void elab_body_close(struct elab *e, struct body *b);
struct val elab_comprehension(struct elab *e, struct scope *s, const struct ast_expr *x);
bool expr_has_index(struct elab *e, ir_expr x);
bool in_notation(const struct elab *e);
/* A loop's counter as a value; lo and hi are its bounds. */
struct val elab_counter(struct elab *e, const char *name, struct ir_value *counter, ir_expr lo, ir_expr hi);

/* ---- elab_slice.c ---------------------------------------------------------------------------------------------------- */

struct val elab_index_expr(struct elab *e, struct scope *s, const struct ast_expr *x, const struct ast_expr *otherwise);
/* base[subs] = value (or combined by op): the next version. NULL after an error. */
struct ir_value *elab_update(struct elab *e, struct scope *s, struct val base, const struct ast_expr *target,
                             bool has_op, enum binary_op op, struct val value, struct span at);

/* ---- elab_type.c ---------------------------------------------------------------------------------------------------- */

bool elab_type(struct elab *e, struct scope *s, const struct ast_expr *x, struct ir_type *t); /* all names bound */
struct val elab_type_expr(struct elab *e, enum dtype t, struct scope *s,
                          const struct ast_expr *x); /* f32[…] as a value */
/* Whether a name in a type is not yet bound. */
bool type_has_unbound(struct elab *e, struct scope *s, const struct ast_expr *x);
/* The element type of a type if it is a name that is not yet bound, else NULL. */
const struct ast_expr *type_unbound_element(struct scope *s, const struct ast_expr *x);
enum match { MATCH_YES, MATCH_NO, MATCH_LATER };
/* Matches an argument against a parameter's type, binding names in s; *v may be converted. NO after a report. */
enum match elab_match(struct elab *e, struct scope *s, const struct ast_expr *type, struct val *v, struct span at,
                      const char *what, bool last_try);
/* An exported function's parameter: makes symbols. */
bool elab_export_type(struct elab *e, struct scope *s, const struct ast_expr *x, struct ir_type *t, const char *what,
                      bool *later);

/* ---- elab_call.c ---------------------------------------------------------------------------------------------------- */

struct arg {
    const char *name;
    struct val value;
    struct cell *cell; /* inout */
    struct span span;
};
struct val elab_call_expr(struct elab *e, struct scope *s, const struct ast_expr *x);
struct val elab_call(struct elab *e, struct val callee, struct arg *args, int count, struct span at);
struct val elab_call_fn(struct elab *e, struct elab_fn *f, struct arg *args, int count, struct span at);
struct val elab_instantiate(struct elab *e, struct elab_class *c, struct arg *args, int count, struct span at);
bool elab_bind_params(struct elab *e, struct scope *s, const struct ast_param *params, int count, struct arg *args,
                      int arg_count, struct span at, const char *what, struct span decl);
/* Converts results to the declared types; *v is one value or a TUPLE. */
bool elab_match_results(struct elab *e, struct scope *s, const struct ast_fn *fn, struct val *v, struct span at,
                        const char *what);
struct cell *elab_lvalue(struct elab *e, struct scope *s,
                         const struct ast_expr *x); /* NAME or MEMBER; NULL after an error */
bool elab_enter(struct elab *e, const char *what, struct span at, struct call_frame *f); /* recursion bound */
void elab_leave(struct elab *e, struct call_frame *f);
/* Where the user's own files ask for what is being elaborated (`at` itself, or a call of the library), and its name. */
struct span elab_user_span(const struct elab *e, struct span at, const char **hint);

/* ---- elab_builtin.c ------------------------------------------------------------------------------------------------- */

struct elab_builtin {
    const char *name;
    const char *signature; /* "sum(x, axis = none, keepdims = false)" */
    struct val (*run)(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at);
    int code; /* scalar_fn, or a variant */
};
void elab_bind_builtins(struct elab *e, struct scope *s);
/* elab_load.c: a constant from a safetensors or npy file; name NULL where the file holds one tensor. */
struct val elab_load_file(struct elab *e, const char *path, const char *name, struct span at);

/* ---- elab_stmt.c ---------------------------------------------------------------------------------------------------- */

void elab_stmts(struct elab *e, struct scope *s, struct ast_stmt *const *stmts, int count);
void elab_body_block(struct elab *e, struct scope *s, const struct ast_block_body *b); /* in a new scope */

/* ---- elab_region.c: control flow of the program ----------------------------------------------------------------------- */

void elab_runtime_if(struct elab *e, struct scope *s, const struct ast_stmt *x, struct val cond);
void elab_runtime_for(struct elab *e, struct scope *s, const struct ast_stmt *x, struct val range);
void elab_runtime_while(struct elab *e, struct scope *s, const struct ast_stmt *x);
void elab_checkpoint(struct elab *e, struct scope *s, const struct ast_stmt *x);
struct ir_value *buffer_value(struct elab *e, struct cell *c);
/* After an error that left out or broke off a body (NULL: nothing): what its untyped variables hold is unknown. */
void elab_spoil_assigned(struct elab *e, struct scope *s, const struct ast_block_body *body);

/* ---- elab_block.c, elab_module.c -------------------------------------------------------------------------------------- */

void elab_decl(struct elab *e, struct scope *s, const struct ast_decl *d);
void elab_assign_name(struct elab *e, struct scope *s, const char *name, struct val v,
                      struct span at); /* an instance */
void elab_list_buffers(struct elab *e, struct val v, bool params, bool states, struct val *list, struct span at);
struct scope *elab_use(struct elab *e, const char *path, bool is_file, struct span at);
const char *instance_path(struct elab *e, struct instance *i);
/* The folder of a file, with its slash; "" for one beside. */
const char *elab_directory_of(struct elab *e, const char *path);
/* elab_train.c: the settings of a train block, when all functions are known. */
void elab_train(struct elab *e, struct scope *s, const struct ast_decl *d);

/* Reports unless silent; NULL then (diag_* accept NULL through these). */
struct diagnostic *elab_error(struct elab *e, enum error_code code, struct span at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void elab_label(struct elab *e, struct diagnostic *d, const char *format, ...) __attribute__((format(printf, 3, 4)));
void elab_note(struct elab *e, struct diagnostic *d, struct span at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void elab_help(struct elab *e, struct diagnostic *d, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
