#!/bin/sh
# Installs the tests' system packages (Chromium, nginx and openssl) with apt-get. If it can't, it says so, and the tests
# that need them are skipped by name.
missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ] || missing="$missing nginx-light"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
[ -n "$missing" ] || exit 0

sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo -n"
echo "everstream | installing$missing for the tests"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "everstream | no apt-get here: install$missing yourself, or the tests that need them are skipped"
elif ! { $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq $missing >/dev/null; }; then
    echo "everstream | apt-get could not install$missing: the tests that need them are skipped"
fi
exit 0
