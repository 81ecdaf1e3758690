# ---- what the modules of all models share -----------------------------------------------------------------------------

_TYPES = {  # in the order of mx_dtype
    "f64": (np.float64, ctypes.c_double),
    "f32": (np.float32, ctypes.c_float),
    "f16": (np.float16, ctypes.c_uint16),
    "bf16": (np.uint16, ctypes.c_uint16),
    "i64": (np.int64, ctypes.c_int64),
    "i32": (np.int32, ctypes.c_int32),
    "i16": (np.int16, ctypes.c_int16),
    "i8": (np.int8, ctypes.c_int8),
    "u64": (np.uint64, ctypes.c_uint64),
    "u32": (np.uint32, ctypes.c_uint32),
    "u16": (np.uint16, ctypes.c_uint16),
    "u8": (np.uint8, ctypes.c_uint8),
    "bool": (np.bool_, ctypes.c_bool),
}
_STATUS = (  # in the order of mx_status
    "MX_OK", "MX_ERROR_ARGUMENT", "MX_ERROR_SHAPE", "MX_ERROR_CHECK", "MX_ERROR_MEMORY", "MX_ERROR_IO",
    "MX_ERROR_FORMAT", "MX_ERROR_NUMERIC", "MX_ERROR_INTERRUPTED", "MX_ERROR_UNSUPPORTED", "MX_ERROR_TIMEOUT",
    "MX_ERROR_PEER",
)


class ModelError(RuntimeError):
    """A call of the library failed. The text is the model's own message, `status` the name of its mx_status."""

    def __init__(self, message, status):
        super().__init__(message)
        self.status = status


def to_bf16(values):
    """The bits of numbers as bf16, rounded to the nearest, ties to even: a float array gives a uint16 array."""
    values = np.asarray(values, np.float32)
    bits = values.view(np.uint32).astype(np.int64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def from_bf16(bits):
    """The numbers that bits of bf16 stand for: a uint16 array gives a float32 array."""
    return np.left_shift(np.asarray(bits, np.uint16), 16, dtype=np.uint32).view(np.float32)


class _Extent(typing.NamedTuple):
    """A run-time dimension: the input and its axis that say how large it is, and its limits."""

    name: str
    input: str
    axis: int
    low: int
    high: int


class _Found(typing.NamedTuple):
    """A dimension that the function finds, and its largest value."""

    name: str
    high: int


class _Value:
    """An input or result. The shape has a number for each axis, or an expression of the function's dimensions; None: it is
    a scalar, passed by value."""

    def __init__(self, name, kind, shape=None, inout=False):
        self.name, self.kind, self.shape, self.inout = name, kind, shape, inout
        self.dtype = np.dtype(_TYPES[kind][0])
        self.numpy = "np.bool_" if kind == "bool" else "np." + self.dtype.name
        self.expected = self.dtype.name
        if shape is not None:
            self.expected += "[%s]" % ", ".join(map(str, shape))
        if kind == "bf16":
            self.expected += ", the bits of bf16"

    def converted(self, what):
        """Advice: how to make the right dtype of `what`."""
        return "to_bf16(%s)" % what if self.kind == "bf16" else "%s.astype(%s)" % (what, self.numpy)

    def extents(self, sizes):
        """The shape as numbers, by the function's dimensions."""
        names = {"__builtins__": {}, "max": max, "min": min}
        return tuple(eval(e, names, sizes) if isinstance(e, str) else e for e in self.shape)


class _Function:
    """An exported function: its name and, in C's order, what it takes and gives. An incremental one takes its inputs, and
    with them the dimensions, by setters before."""

    def __init__(self, name, extents=(), inputs=(), found=(), results=(), gives=None, incremental=False, setter_of=None):
        self.name, self.extents, self.inputs, self.found, self.results = name, extents, inputs, found, results
        self.gives, self.incremental, self.setter_of = gives, incremental, setter_of

    def declare(self, library, prefix):
        function = getattr(library, "%s_%s" % (prefix, self.name))
        types = [ctypes.c_void_p]
        if not self.incremental:
            types += [ctypes.c_int64] * len(self.extents)
        types += [ctypes.c_void_p if v.shape is not None else _TYPES[v.kind][1] for v in self.inputs]
        function.argtypes = types + [ctypes.c_void_p] * (len(self.found) + len(self.results))
        function.restype = ctypes.c_int
        if self.incremental:
            ran = getattr(library, "%s_%s_ran" % (prefix, self.name))
            ran.argtypes, ran.restype = [ctypes.c_void_p], ctypes.c_int64

    # -- what was given, against what is expected

    def wrong(self, value, given, advice):
        return "%s: %s is %s, expected %s; %s" % (self.name, value.name, _described(given), value.expected, advice)

    def scalar(self, value, given):
        """A number as ctypes takes it."""
        kind = value.dtype.kind
        if isinstance(given, np.ndarray) and given.ndim == 0:
            given = given[()]
        if kind == "b":
            if not isinstance(given, (bool, np.bool_)):
                raise TypeError(self.wrong(value, given, "give True or False"))
            return bool(given)
        if isinstance(given, (bool, np.bool_)):
            raise TypeError(self.wrong(value, given, "give a number"))
        if kind == "f":
            if not isinstance(given, (int, float, np.integer, np.floating)):
                raise TypeError(self.wrong(value, given, "give a number"))
            return int(np.float16(given).view(np.uint16)) if value.kind == "f16" else float(given)
        if not isinstance(given, (int, np.integer)):
            raise TypeError(self.wrong(value, given, "int(%s) converts" % value.name))
        limits = np.iinfo(value.dtype)
        if not limits.min <= given <= limits.max:
            raise ValueError("%s: %s is %d, %s holds %d to %d" % (
                self.name, value.name, given, value.dtype.name, limits.min, limits.max))
        return int(given)

    def tensor(self, value, given):
        """Checks the type and the number of axes."""
        if not isinstance(given, np.ndarray):
            make = "to_bf16(%s)" if value.kind == "bf16" else "np.array(%%s, %s)" % value.numpy
            raise TypeError(self.wrong(value, given, make % value.name + " makes one"))
        if given.dtype != value.dtype:
            raise TypeError(self.wrong(value, given, value.converted(value.name) + " converts"))
        if given.ndim != len(value.shape):
            raise ValueError(self.wrong(value, given, "%d axes are needed; reshape gives an array others" % len(value.shape)))
        if value.inout and not given.flags.writeable:
            raise ValueError("%s: %s is updated in place, and this array is read-only; give a copy" % (self.name, value.name))

    def dimensions(self, tensors):
        """The run-time dimensions from the shapes of the inputs, which must agree."""
        sizes = {}
        for e in self.extents:
            size = sizes[e.name] = tensors[e.input].shape[e.axis]
            if not e.low <= size <= e.high:
                raise ValueError("%s: %s is %d (axis %d of %s), its limits are %d to %d" % (
                    self.name, e.name, size, e.axis, e.input, e.low, e.high))
        for value in self.inputs:
            if value.shape is not None and tensors[value.name].shape != value.extents(sizes):
                where = ", ".join("%s = %d" % item for item in sizes.items())
                raise ValueError("%s: %s is %s, expected %s%s" % (
                    self.name, value.name, _described(tensors[value.name]), value.expected, where and " with " + where))
        return sizes


def _by_name(*functions):
    return {f.name: f for f in functions}


def _described(given):
    if isinstance(given, np.ndarray):
        return "%s[%s]" % (given.dtype, ", ".join(map(str, given.shape)))
    return "%r, %s" % (given, type(given).__name__) if np.isscalar(given) else "of type " + type(given).__name__


_Log = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)


class _Options(ctypes.Structure):
    _fields_ = [
        ("seed", ctypes.c_uint64),
        ("threads", ctypes.c_int),
        ("log", _Log),
        ("log_context", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),  # the image, or the path; only read by units that take one
        ("weights_bytes", ctypes.c_size_t),
    ]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_int),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
    ]


class _Param(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("is_state", ctypes.c_int), ("value", _Tensor)]


class _Model:
    """An instance of a model. Its memory belongs to it alone: an instance is used by one thread at a time, any number of
    instances side by side. It is a context manager; close() gives its threads back, and any later call is an error."""

    _prefix, _memory_bytes, _param_count, _libraries, _functions = "", 0, 0, (), {}

    def _open(self, seed, threads, log, library, weights=None):
        self._instance, self._busy, self._given = None, threading.Lock(), {}
        if not 0 <= seed < 2**64:
            raise ValueError("seed is %r, expected an integer from 0 to 2**64 - 1" % (seed,))
        if not 0 <= threads < 2**31:
            raise ValueError("threads is %r, expected 0 (one a processor) or a number of threads" % (threads,))
        self._library = self._load_library(library)
        self._memory = np.empty(self._memory_bytes, np.uint8)
        self._weights = weights  # must outlive the instance
        early = []  # init says by the log what went wrong
        sink = [early.append]
        self._log = _Log(lambda context, text: sink[0](text.decode("utf-8", "replace")))
        options = _Options(seed, threads, self._log, None)
        if isinstance(weights, np.ndarray):
            options.weights, options.weights_bytes = weights.ctypes.data, weights.size
        elif weights is not None:
            options.weights = ctypes.cast(ctypes.c_char_p(weights), ctypes.c_void_p)
        instance = ctypes.c_void_p()
        status = self._c("init")(
            ctypes.byref(instance), self._memory.ctypes.data, self._memory_bytes, ctypes.byref(options))
        if status != 0:
            raise ModelError(early[-1] if early else "%s_init failed" % self._prefix, _STATUS[status])
        self._instance, sink[0] = instance, log
        for text in early:
            log(text)
        self._live, self._kinds, self._states = self._find_buffers()

    def _load_library(self, path):
        folder = os.path.dirname(os.path.abspath(__file__))
        paths = [os.path.join(folder, name) for name in self._libraries] if path is None else [os.fspath(path)]
        found = next((p for p in paths if os.path.exists(p)), None)
        if found is None:
            raise FileNotFoundError("there is no %s; `mxcc build MODEL.mxl --python` makes it and this module, "
                                    "or give library = its path" % " or ".join(paths))
        library = ctypes.CDLL(os.path.abspath(found))
        size = getattr(library, self._prefix + "_size", None)
        if size is not None:
            size.argtypes, size.restype = [ctypes.c_void_p], ctypes.c_size_t
        if size is None or size(None) != self._memory_bytes:
            raise ImportError("%s and %s are not of one model and one build; build both again" % (found, __file__))
        pointer, text, status = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        for name, result, arguments in (
                ("init", status, [pointer, pointer, ctypes.c_size_t, pointer]), ("free", None, [pointer]),
                ("error", text, [pointer]), ("reset_all", status, [pointer]), ("param", status, [pointer, text, pointer]),
                ("param_at", status, [pointer, ctypes.c_int, pointer]), ("save", status, [pointer, text]),
                ("load", status, [pointer, text])):
            if name in ("save", "load") and not hasattr(library, "%s_%s" % (self._prefix, name)):
                continue  # built with ..._NO_STDIO
            function = getattr(library, "%s_%s" % (self._prefix, name))
            function.restype, function.argtypes = result, arguments
        for function in self._functions.values():
            function.declare(library, self._prefix)
        return library

    def _c(self, name):
        return getattr(self._library, "%s_%s" % (self._prefix, name))

    def _run(self, name, *arguments):
        """Calls a C function on the instance; a status other than MX_OK becomes an exception."""
        if self._instance is None:
            raise ModelError("the instance is closed", "MX_ERROR_ARGUMENT")
        if not self._busy.acquire(blocking=False):
            raise ModelError("the instance is at work, in another thread or a call further up; each thread needs an instance "
                             "of its own", "MX_ERROR_ARGUMENT")
        try:
            status = self._c(name)(self._instance, *arguments)
            if status != 0:
                raise ModelError(self._c("error")(self._instance).decode("utf-8", "replace"), _STATUS[status])
        finally:
            self._busy.release()

    # -- exported functions

    def _call(self, name, *given):
        f = self._functions[name]
        given = dict(zip([v.name for v in f.inputs], given))
        tensors = {v.name: given[v.name] for v in f.inputs if v.shape is not None}
        for v in f.inputs:
            if v.shape is not None:
                f.tensor(v, given[v.name])
        arguments, used, updated = [], [], []
        if f.incremental:  # an input without a value is the library's error
            sizes = {e.name: self._given.get((f.name, e.input), {}).get(e.name, e.low) for e in f.extents}
        else:
            sizes = f.dimensions(tensors)
            arguments += sizes.values()
        for v in f.inputs:
            if v.shape is None:
                arguments.append(f.scalar(v, given[v.name]))
                continue
            array = np.require(tensors[v.name], requirements=["C", "A"])
            others = [tensors[o.name] for o in f.inputs if o.inout and o is not v]
            if v.inout and any(np.may_share_memory(tensors[v.name], a) for a in others):
                raise ValueError("%s: %s shares memory with another inout argument; give a copy" % (f.name, v.name))
            if any(np.may_share_memory(array, a) for a in others + [self._memory]):
                array = array.copy()  # arguments are values: what the function writes must not change them
            if v.inout and array is not tensors[v.name]:
                updated.append((tensors[v.name], array))
            used.append(array)
            arguments.append(array.ctypes.data)
        found = np.zeros(len(f.found), np.int64)
        room = dict(sizes, **{k.name: k.high for k in f.found})
        results = [np.empty(math.prod(v.extents(room)) if v.shape is not None else 1, v.dtype) for v in f.results]
        arguments += [found[i:].ctypes.data for i in range(len(f.found))] + [r.ctypes.data for r in results]
        self._run(name, *arguments)
        if f.setter_of:
            self._given[f.setter_of, f.inputs[0].name] = sizes
        for theirs, array in updated:
            theirs[...] = array
        sizes.update((k.name, int(n)) for k, n in zip(f.found, found))
        for i, v in enumerate(f.results):
            shape = v.extents(sizes) if v.shape is not None else ()
            results[i] = results[i][: math.prod(shape)].reshape(shape)
            if not shape:
                results[i] = results[i][()]
        if f.gives:
            return f.gives(*results)
        return results[0] if results else None

    def _ran(self, name):
        if self._instance is None:
            raise ModelError("the instance is closed", "MX_ERROR_ARGUMENT")
        return self._c(name + "_ran")(self._instance)

    # -- parameters and states

    def _find_buffers(self):
        """By name: arrays over the instance's own memory, which they keep alive, and element types; which are states."""
        live, kinds, states, base = {}, {}, set(), self._memory.ctypes.data
        for i in range(self._param_count):
            param = _Param()
            self._run("param_at", i, ctypes.byref(param))
            value, name = param.value, param.name.decode()
            kinds[name], offset = list(_TYPES)[value.dtype], (value.data or base) - base
            if value.bytes == 0 or 0 <= offset <= self._memory_bytes - value.bytes:
                array = self._memory[offset : offset + value.bytes]
            else:  # a constant of the library, or in the caller's image
                array = np.frombuffer((ctypes.c_ubyte * value.bytes).from_address(value.data), np.uint8)
                array.flags.writeable = False
            live[name] = array.view(_TYPES[kinds[name]][0]).reshape(value.shape[: value.rank])
            if param.is_state:
                states.add(name)
        return live, kinds, states

    def _find(self, name):
        """The array and element type of a parameter or state."""
        if name not in self._live:
            near = difflib.get_close_matches(str(name), self._live, 1)
            raise ValueError("there is no parameter or state %r%s" % (name, "; did you mean %r?" % near[0] if near else ""))
        return self._live[name], self._kinds[name]

    def _find_writeable(self, name):
        array, kind = self._find(name)
        if not array.flags.writeable:
            raise ValueError("%r is a constant of this unit: no function of the model writes it, and it was compiled with "
                             "--weights source or caller" % name)
        return array, kind

    def _write(self, arrays):
        for name, array in arrays.items():
            self._run("param", name.encode(), ctypes.byref(_Tensor()))  # what incremental functions learn it by
            self._live[name][...] = array

    def parameters(self):
        """Copies of all parameters: a dict from name to array, in the order of the model."""
        return {name: array.copy() for name, array in self._live.items() if name not in self._states}

    def states(self):
        """Copies of all states, such as running means and what optimizers remember: a dict from name to array."""
        return {name: array.copy() for name, array in self._live.items() if name in self._states}

    def set_parameters(self, arrays):
        """Writes parameters, and states, by name; those that are not named stay. Nothing is written if one does not fit."""
        f = _Function("set_parameters")
        for name, given in arrays.items():
            array, kind = self._find_writeable(name)
            value = _Value(repr(name), kind, array.shape)
            if not isinstance(given, (np.ndarray, np.generic)):
                raise TypeError(f.wrong(value, given, value.converted("np.asarray(it)") + " makes one"))
            if given.dtype != array.dtype:
                whole = given.dtype.kind == "f" and kind[0] in "iu"
                raise TypeError(f.wrong(value, given, value.converted("np.rint(it)" if whole else "it") + " converts"))
            if given.shape != array.shape:
                raise ValueError(f.wrong(value, given, "every axis must be the same"))
        self._write(arrays)

    def view(self, name):
        """A parameter or state itself, not a copy: writing into the array changes the model. It is fetched again for later
        writes where incremental functions shall notice them."""
        array, _ = self._find(name)
        self._run("param", name.encode(), ctypes.byref(_Tensor()))
        return array

    def delta(self, since):
        """What changed: a dict from each name in `since`, which holds copies that parameters() or states() gave, to what is
        there now minus the copy; in float32 for f16 and bf16, in int64 for integers."""
        out = {}
        for name, before in since.items():
            (now, kind), before = self._find(name), np.asarray(before)
            if before.shape != now.shape or before.dtype != now.dtype:
                raise ValueError("delta: %r was %s and is %s; `since` holds what parameters() or states() gave" % (
                    name, _described(before), _described(now)))
            out[name] = _wide(now, kind) - _wide(before, kind)
        return out

    def add_delta(self, delta, scale=1):
        """Adds scale times each array of `delta` to the parameter or state of that name, rounding once. Nothing is written
        if one does not fit."""
        sums = {}
        for name, given in delta.items():
            (array, kind), given = self._find_writeable(name), np.asarray(given)
            if given.dtype.kind not in "fiu" or given.shape != array.shape:
                raise ValueError("add_delta: %r is %s, expected numbers[%s]" % (
                    name, _described(given), ", ".join(map(str, array.shape))))
            change = _wide(given, None) * scale
            if kind[0] in "iu" and change.dtype.kind == "f":
                change = np.rint(change).astype(np.int64)
            total = _wide(array, kind) + change
            sums[name] = to_bf16(total) if kind == "bf16" else total.astype(array.dtype)
        self._write(sums)

    # -- the instance

    def save(self, path):
        """Writes all parameters and states, the seed and the call counter to a safetensors file."""
        self._file("save", path)

    def load(self, path):
        """Reads what save wrote. A file that does not fit changes nothing."""
        self._file("load", path)

    def _file(self, name, path):
        if not hasattr(self._library, "%s_%s" % (self._prefix, name)):
            raise ModelError("%s: the library was built with %s_NO_STDIO" % (name, self._prefix.upper()), "MX_ERROR_UNSUPPORTED")
        self._run(name, os.fsencode(path))

    def reset_all(self):
        """Every state to its initial value."""
        self._run("reset_all")

    def close(self):
        """Ends the instance. Arrays that view() gave stay readable."""
        if getattr(self, "_instance", None) is not None:
            self._c("free")(self._instance)
            self._instance = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __del__(self):
        self.close()

    def __reduce__(self):
        raise TypeError("an instance of a model is not copied: make another, and hand over parameters() and states()")


def _wide(array, kind):
    """Numbers in a type that holds differences."""
    if kind == "bf16":
        return from_bf16(array)
    if kind == "bool":
        raise TypeError("truth values have no difference; leave states of type bool out")
    return array.astype(np.promote_types(array.dtype, np.float32) if array.dtype.kind == "f" else np.int64)
