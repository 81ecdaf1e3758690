"""The client: it gets the common weights, trains on images that never leave it, and gives weights back.

Its number is `partition` of the SuperNode's --node-config. The model is made anew for each message, so that a client holds
nothing between rounds, as in federated learning across many devices."""
from digits import Digits
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from federated import digits_data

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    config, run, partition = message.content["config"], context.run_config, int(context.node_config["partition"])
    (x, y), _ = digits_data.load(run["data"])
    mine = digits_data.split(y, run["clients"])[partition]
    with Digits(seed=int(config["server-round"]) * 1000 + partition, threads=1) as model:
        model.set_parameters({name: array.numpy() for name, array in message.content["arrays"].items()})
        loss = digits_data.train(model, x[mine], y[mine], run["epochs"], lambda done: config["lr"],
                                 seed=(config["server-round"], partition))
        arrays = ArrayRecord({name: Array(array) for name, array in digits_data.weights(model).items()})
    metrics = MetricRecord({"loss": loss, "num-examples": len(mine)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
