#!/bin/sh
# Installs the tests' system packages with apt-get: Chromium, Firefox (80 MB to download, 310 MB installed, 10 s), nginx,
# node, openssl, Prometheus (22 MB, 330 MB, 5 s), for the tests with a dead network link iproute2 and nftables (2 MB, 2 s),
# and for those of what deploy/ has bubblewrap, redis-cli, systemd-analyze (systemd itself does not start) and wget (5 MB,
# 3 s). If it can't, it says so, and the tests that need them are skipped by name.
missing=""
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }
need chromium-headless-shell chromium-headless-shell
need firefox-esr firefox-esr
need nginx nginx-light
# For bench.topics and bench.fan_out.
[ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] || missing="$missing libnginx-mod-nchan"
need node nodejs
need openssl openssl
need ip iproute2
need nft nftables
need prometheus prometheus
need bwrap bubblewrap
need redis-cli redis-tools
need systemd-analyze systemd
need wget wget
[ -n "$missing" ] || exit 0

sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo -n"
echo "everstream | installing$missing for the tests"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "everstream | no apt-get here: install$missing yourself, or the tests that need them are skipped"
    exit 0
fi
$sudo apt-get update -qq
# One at a time: a distribution that lacks one of them (Ubuntu has no firefox-esr) still gets the others.
for package in $missing; do
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
        echo "everstream | apt-get could not install $package: the tests that need it are skipped"
done
exit 0
