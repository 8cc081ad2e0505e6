"""Publishes the results of made-up games, until it is stopped.

python examples/topics/leaderboard.py [--new-season] [SECONDS BETWEEN GAMES]
"""

import argparse
import random
import time

from publish import delete, make, publish

TOPIC = "games/results"
PLAYERS = ["Ada", "Alan", "Barbara", "Dennis", "Edsger", "Grace", "Margaret", "Niklaus"]


def main(pause_s, *, is_new_season):
    if is_new_season:
        # Pages that follow the topic are told so by `reset`.
        delete(TOPIC)
    # Whoever opens the page adds up all games.
    make(TOPIC, history=100_000)
    while True:
        publish(TOPIC, {"player": random.choice(PLAYERS), "points": random.choice([1, 1, 1, 2, 3, 5])})
        time.sleep(pause_s)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--new-season", action="store_true")
    parser.add_argument("pause_s", nargs="?", type=float, default=0.5)
    given = parser.parse_args()
    main(given.pause_s, is_new_season=given.new_season)
