#!/bin/sh
# Publishes lines: tail -F FILE | examples/topics/log.sh [TOPIC]
#
# EVERSTREAM_URL is the service's address; EVERSTREAM_API_KEY a key that may publish, if the service has keys.
set -eu
url=${EVERSTREAM_URL:-http://127.0.0.1:8000}
topic=${1:-logs/$(uname -n)}
run=$(date +%s)-$$
n=0
while IFS= read -r line; do
  n=$((n + 1))
  # With an id, a line that has to be sent again is in the topic once.
  printf %s "$line" | curl --silent --show-error --fail --output /dev/null --retry 60 --retry-delay 1 --retry-all-errors \
    --header "Authorization: Bearer ${EVERSTREAM_API_KEY:-}" --header 'Content-Type: text/plain' --data-binary @- \
    "$url/topics/$topic?id=$run-$n"
done
