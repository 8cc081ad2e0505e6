"""Publishes made-up prices, each symbol's to a topic of its own, until it is stopped.

python examples/topics/ticker.py [SECONDS BETWEEN PRICES]
"""

import itertools
import random
import sys
import time

from publish import publish_all

SYMBOLS = {"ACME": 120.0, "GLOBEX": 48.5, "HOOLI": 310.0, "INITECH": 17.2, "STARK": 205.0, "UMBRELLA": 66.6}


def main(pause_s):
    prices = dict(SYMBOLS)
    for n in itertools.count(1):
        prices = {symbol: price * random.lognormvariate(0, 0.002) for symbol, price in prices.items()}
        publish_all({f"prices/{symbol}": {"n": n, "price": round(price, 2)} for symbol, price in prices.items()})
        time.sleep(pause_s)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
