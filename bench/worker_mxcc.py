"""A step of a model that mxcc compiled: the shared library beside the models, by its C interface."""
import ctypes
import sys

from worker import arguments, inputs, labels, serve

model, threads, library = arguments()
lib = ctypes.CDLL(library)


class Options(ctypes.Structure):
    _fields_ = [("seed", ctypes.c_uint64), ("threads", ctypes.c_int), ("log", ctypes.c_void_p), ("context", ctypes.c_void_p)]


x = (ctypes.c_float * (64 * 784))(*inputs(64 * 784))
y = (ctypes.c_int32 * 64)(*labels(64))
loss = ctypes.c_float()
instance = ctypes.c_void_p()
options = Options(seed=1, threads=threads)
if getattr(lib, model + "_init")(ctypes.byref(instance), None, ctypes.c_size_t(0), ctypes.byref(options)):
    sys.exit("init failed")
run = getattr(lib, model + "_step")
size = getattr(lib, model + "_size")
size.restype = ctypes.c_size_t


def step():
    if run(instance, x, y, ctypes.byref(loss)):
        sys.exit("step failed")
    return loss.value


serve(step, instance_bytes=size(ctypes.byref(options)))
