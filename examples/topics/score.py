"""Publishes made-up matches, one after the other, until it is stopped.

python examples/topics/score.py [SECONDS IN A MINUTE OF THE MATCH]
"""

import random
import sys
import time

from publish import delete, make, publish

TEAMS = ["Rovers", "United", "Albion", "Wanderers", "Athletic", "Rangers"]
EVENTS = ["A corner for {}.", "{} hit the post!", "A free kick for {}.", "A yellow card for {}.", "{} change a player."]
MINUTES = 90


def main(minute_s):
    make("match/score", latest=True)
    while True:
        # Pages that follow it are told so by `reset`, and forget what was said of the last match.
        delete("match/comments")
        play(random.sample(TEAMS, 2), minute_s)


def play(teams, minute_s):
    goals = [0, 0]
    for minute in range(MINUTES + 1):
        side, chance = random.randrange(2), random.random()
        if chance < 0.04:
            goals[side] += 1
            comment(minute, f"Goal for {teams[side]}!", "goal")
        elif chance < 0.15:
            comment(minute, random.choice(EVENTS).format(teams[side]))
        publish("match/score", {"home": teams[0], "away": teams[1], "goals": goals, "minute": minute})
        time.sleep(minute_s)


def comment(minute, text, kind="other"):
    publish("match/comments", {"minute": minute, "text": text, "kind": kind})


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
