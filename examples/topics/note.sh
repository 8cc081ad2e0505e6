#!/bin/sh
# Writes a line of the shared note: examples/topics/note.sh 3 "Buy milk"
#
# EVERSTREAM_URL is the service's address; EVERSTREAM_API_KEY a key that may publish, if the service has keys.
set -eu
text=$(printf %s "$2" | sed 's/[\\"]/\\&/g' | tr -d '\000-\037')
data="{\"text\": \"$text\", \"by\": \"$(id -un)\", \"edit\": \"$(date +%s) $$\"}"
curl --silent --show-error --fail --output /dev/null --retry 60 --retry-delay 1 --retry-all-errors \
  --header "Authorization: Bearer ${EVERSTREAM_API_KEY:-}" --header 'Content-Type: application/json' \
  --data-binary "{\"data\": $data, \"id\": \"$(date +%s) $$\"}" \
  "${EVERSTREAM_URL:-http://127.0.0.1:8000}/topics/note/$1"
