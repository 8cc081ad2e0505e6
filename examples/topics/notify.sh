#!/bin/sh
# Publishes a notification: make test; examples/topics/notify.sh "The tests are through"
#
# EVERSTREAM_URL is the service's address; EVERSTREAM_API_KEY a key that may publish, if the service has keys.
set -eu
# With an id, one that has to be sent again is in the topic once.
printf %s "$1" | curl --silent --show-error --fail --output /dev/null --retry 60 --retry-delay 1 --retry-all-errors \
  --header "Authorization: Bearer ${EVERSTREAM_API_KEY:-}" --header 'Content-Type: text/plain' --data-binary @- \
  "${EVERSTREAM_URL:-http://127.0.0.1:8000}/topics/notifications/me?id=$(date +%s)-$$"
