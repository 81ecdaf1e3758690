"""What one program with all the images reaches: the figure that federated training is held against. A program of its own:
central.py DATA EPOCHS LR prints it as JSON."""
import json
import sys

from digits import Digits

from federated import digits_data


def main(data, epochs, lr):
    (x, y), (held_x, held_y) = digits_data.load(data)
    with Digits(seed=0, threads=1) as model:
        loss = digits_data.train(model, x, y, epochs, lambda done: digits_data.cosine(lr, done), seed=0)
        print(json.dumps({"accuracy": digits_data.accuracy(model, held_x, held_y), "loss": loss}))


main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
