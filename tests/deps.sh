#!/usr/bin/env bash
# Installs the programs that the tests drive: on Debian and its relatives
# through apt when root; elsewhere it names what is missing. Tests that miss a
# program skip and say so, so a missing one is no failure here, except gcc:
# the race detector cannot do without it.
set -euo pipefail

# program=Debian package
wanted=(
  nc=netcat-openbsd ip=iproute2 nsenter=util-linux ps=procps tmux=tmux
  dockerd=docker.io docker=docker-cli podman=podman iptables=iptables busybox=busybox-static
  pasta=passt gcc=gcc
  nft=nftables curl=curl dig=bind9-dnsutils dnsmasq=dnsmasq-base python3=python3
  redis-server=redis-server redis-cli=redis-tools
  qemu-system-x86_64=qemu-system-x86 mmdebstrap=mmdebstrap mke2fs=e2fsprogs
  ssh=openssh-client sshd=openssh-server
  strace=strace dh_bash-completion=bash-completion
)

missing() {
  local w
  for w in "${wanted[@]}"; do
    # Debian keeps daemons in directories that an ordinary user's PATH lacks.
    PATH="$PATH:/usr/sbin:/sbin" command -v "${w%%=*}" >/dev/null || echo "$w"
  done
  # A header tells a compiler that can only preprocess from one that links.
  if command -v gcc >/dev/null && ! echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1; then
    echo "libc=libc6-dev"
  fi
  return 0
}

mapfile -t lacking < <(missing)
if ((${#lacking[@]} > 0)) && ((EUID == 0)) && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || echo "deps: apt-get update failed; trying without" >&2
  for w in "${lacking[@]}"; do
    # One by one: a package that this release does not have must not keep the
    # others away, and one may bring another's program (docker.io did until
    # Debian 12 bring docker).
    PATH="$PATH:/usr/sbin:/sbin" command -v "${w%%=*}" >/dev/null && continue
    apt-get install -y -qq --no-install-recommends "${w#*=}" </dev/null >/dev/null ||
      echo "deps: apt-get could not install ${w#*=}" >&2
  done
  mapfile -t lacking < <(missing)
fi

for w in "${lacking[@]}"; do
  echo "deps: missing: ${w%%=*} (Debian package ${w#*=}); tests that need it will skip" >&2
done
if ! command -v gcc >/dev/null; then
  echo "deps: gcc is needed for go test -race: install it" >&2
  exit 1
fi
