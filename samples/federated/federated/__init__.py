"""A Flower app: clients with uneven data train samples/digits.mxl together."""
