"""MXNet 1.9.1 with its store dist_sync, or with Horovod in its place: `worker_mxnet.py MODEL sleep|real BATCH [horovod]`. Servers and the scheduler
are this file, too: importing mxnet makes them such by DMLC_ROLE."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
os.environ["OMP_NUM_THREADS"] = "1"
import mxnet as mx

from control import SIZE, Clock, serve, table

model, kind, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
with_horovod = sys.argv[4:] == ["horovod"]
if with_horovod:
    import horovod.mxnet as hvd

    hvd.init()
clock = Clock()


def sleeping():
    """What Gluon's Trainer does for each tensor when the gradient is there: a push and a pull of it, the last ones first where several wait.
    The next step waits for a parameter when it needs it; clipping by the norm of all, which the language model has, for all at the
    first."""
    keys = table()
    gradients = [mx.nd.full((k["elements"],), 1e-3) for k in keys]
    priority = {i: -n for n, i in enumerate(sorted(range(len(keys)), key=lambda i: keys[i]["need"]))}
    store = None if with_horovod else mx.kv.create("dist_sync")
    if store:
        for i, g in enumerate(gradients):
            store.init(i, g)
    forward = sorted(range(len(keys)), key=lambda i: keys[i]["need"])

    def step(seconds):
        clock.start(seconds)
        for i in forward:
            if keys[i]["need"] < keys[i]["final"]:
                clock.until(keys[i]["need"])
            clock.wait(gradients[i].wait_to_read)
        for i, g in enumerate(gradients):
            clock.until(keys[i]["final"])
            if with_horovod:
                hvd.allreduce_(g, average=True, name=str(i), priority=priority[i])
            else:
                store.push(i, g, priority=priority[i])
                store.pull(i, g, priority=priority[i])
        clock.until(1)

    return step


def real():
    import zoo_mxnet

    net, inputs, y = zoo_mxnet.network(model, batch)
    criterion = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    criterion.hybridize(static_alloc=True)
    settings = {"learning_rate": 0.01, "momentum": 0.9}
    parameters = net.collect_params()
    if with_horovod:
        hvd.broadcast_parameters(parameters, root_rank=0)
        trainer = hvd.DistributedTrainer(parameters, "sgd", settings)
    elif SIZE > 1:  # a common norm of averaged gradients cannot be had where servers apply them
        trainer = mx.gluon.Trainer(parameters, "sgd", settings, kvstore="dist_sync", update_on_kvstore=model != "lstm_lm")
    else:
        trainer = mx.gluon.Trainer(parameters, "sgd", settings, kvstore=None)
    trained = [p for p in parameters.values() if p.grad_req != "null"]

    def step(_):
        with mx.autograd.record():
            out = net(*inputs)
            loss = criterion(out[0] if model == "lstm_lm" else out, y).mean()
        loss.backward()
        if model == "lstm_lm":
            trainer.allreduce_grads()
            mx.gluon.utils.clip_global_norm([p.grad() for p in trained], 5 * SIZE)
            trainer.update(SIZE)
        else:
            trainer.step(SIZE)
        loss.asscalar()

    return step


serve(sleeping() if kind == "sleep" else real())
