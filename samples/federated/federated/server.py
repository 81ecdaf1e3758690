"""The server: federated averaging (McMahan and others, 2017) by Flower's FedAvg, each client weighted by its number of images.
After every round it reads the held-out images with the averaged weights. The result is a JSON file."""
import json

from digits import Digits
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from federated import digits_data

app = ServerApp()


class DecayingFedAvg(FedAvg):
    """FedAvg whose clients learn more slowly from round to round."""

    def __init__(self, rounds, lr, **more):
        super().__init__(**more)
        self.rounds, self.lr = rounds, lr

    def configure_train(self, server_round, arrays, config, grid):
        config["lr"] = digits_data.cosine(self.lr, (server_round - 1) / self.rounds)
        return super().configure_train(server_round, arrays, config, grid)


@app.main()
def main(grid: Grid, context: Context) -> None:
    run = context.run_config
    _, (x, y) = digits_data.load(run["data"])
    model = Digits(seed=0, threads=1)

    def evaluate(server_round, arrays):
        model.set_parameters({name: array.numpy() for name, array in arrays.items()})
        return MetricRecord({"accuracy": digits_data.accuracy(model, x, y)})

    strategy = DecayingFedAvg(run["rounds"], run["lr"], fraction_evaluate=0.0, min_train_nodes=run["clients"],
                              min_available_nodes=run["clients"])
    start = ArrayRecord({name: Array(array) for name, array in digits_data.weights(model).items()})
    result = strategy.start(grid=grid, initial_arrays=start, num_rounds=run["rounds"], train_config=ConfigRecord(),
                            evaluate_fn=evaluate)
    rounds = result.evaluate_metrics_serverapp
    with open(run["result"], "w", encoding="utf-8") as f:
        json.dump({"accuracy": [rounds[r]["accuracy"] for r in sorted(rounds)],
                   "loss": [m["loss"] for m in result.train_metrics_clientapp.values()]}, f)
