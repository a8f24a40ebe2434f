#!/bin/sh
set -eu
umask 022
put() {
  mkdir -p "$(dirname "$2")"
  (umask 077; printf %s "$3" | base64 -d > "$2")
  chmod "$1" "$2"
}
account() {
  getent passwd "$1" > /dev/null || useradd -m -s /bin/bash -c "$2" "$1"
  printf '%s:%s\n' "$1" "$3" | chpasswd -e
}
keys() {
  home="$(getent passwd "$1" | cut -d: -f6)"
  group="$(id -gn "$1")"
  mkdir -p "$home/.ssh"
  printf %s "$2" | base64 -d > "$home/.ssh/authorized_keys"
  chmod 0700 "$home/.ssh"
  chmod 0600 "$home/.ssh/authorized_keys"
  chown -R "$1:$group" "$home/.ssh"
}
account 'ops' '' '*'
keys 'ops' 'c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUo0eXI4RGdQR2pZSlhuTFNZS2xHSUFReHdkenpIVnN4cDdSSjJtUCtnQ2sgb3BzQHJhY2sK'
account 'alice' 'Alice O'\''Hara' '$6$rackbarsalt$SVtNWWz7hDRJXz3vEiBB3qKFmHKLjPMfj5AbzmT9MkKaaVYZ2ZUsrAbtqlgoH3YHfOtJTx5eW5HFaYnWXmeFY.'
keys 'alice' 'c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUo0eXI4RGdQR2pZSlhuTFNZS2xHSUFReHdkenpIVnN4cDdSSjJtUCtnQ2sgb3BzQHJhY2sK'
put 0440 '/etc/sudoers.d/90-rackbar-ops' 'b3BzIEFMTD0oQUxMOkFMTCkgTk9QQVNTV0Q6IEFMTAo='
put 0440 '/etc/sudoers.d/90-rackbar-alice' 'YWxpY2UgQUxMPShBTEw6QUxMKSBBTEwK'
put 0444 '/etc/machine-id' 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYK'
put 0644 '/etc/rsyslog.d/90-rackbar.conf' 'Ki4qIEAxMC4wLjAuMjo1MTQK'
put 0644 '/etc/hostname' 'bm9kZS0wMDEK'
put 0644 '/etc/hosts' 'MTI3LjAuMC4xIGxvY2FsaG9zdAo6OjEgbG9jYWxob3N0IGlwNi1sb2NhbGhvc3QgaXA2LWxvb3BiYWNrCjEyNy4wLjEuMSBub2RlLTAwMS5yYWNrLmV4YW1wbGUgbm9kZS0wMDEK'
put 0600 '/etc/netplan/90-rackbar-nics.yaml' 'ewogICJuZXR3b3JrIjogewogICAgImV0aGVybmV0cyI6IHsKICAgICAgIm1nbXQiOiB7CiAgICAgICAgImRoY3AtaWRlbnRpZmllciI6ICJtYWMiLAogICAgICAgICJkaGNwNCI6IHRydWUsCiAgICAgICAgImRoY3A2IjogdHJ1ZSwKICAgICAgICAibWF0Y2giOiB7CiAgICAgICAgICAibWFjYWRkcmVzcyI6ICIwMjowMDowMDowMDowMDowMSIKICAgICAgICB9LAogICAgICAgICJuYW1lc2VydmVycyI6IHsKICAgICAgICAgICJhZGRyZXNzZXMiOiBbCiAgICAgICAgICAgICIxMC4xLjAuMiIsCiAgICAgICAgICAgICIxMC4xLjAuMyIKICAgICAgICAgIF0sCiAgICAgICAgICAic2VhcmNoIjogWwogICAgICAgICAgICAicmFjay5leGFtcGxlIgogICAgICAgICAgXQogICAgICAgIH0sCiAgICAgICAgInNldC1uYW1lIjogIm1nbXQiCiAgICAgIH0sCiAgICAgICJwb3J0MCI6IHsKICAgICAgICAibWF0Y2giOiB7CiAgICAgICAgICAibWFjYWRkcmVzcyI6ICIwMjowMDowMDowMDowMDowMiIKICAgICAgICB9LAogICAgICAgICJzZXQtbmFtZSI6ICJwb3J0MCIKICAgICAgfSwKICAgICAgInBvcnQxIjogewogICAgICAgICJtYXRjaCI6IHsKICAgICAgICAgICJtYWNhZGRyZXNzIjogIjAyOjAwOjAwOjAwOjAwOjAzIgogICAgICAgIH0sCiAgICAgICAgInNldC1uYW1lIjogInBvcnQxIgogICAgICB9CiAgICB9LAogICAgInJlbmRlcmVyIjogIm5ldHdvcmtkIiwKICAgICJ2ZXJzaW9uIjogMgogIH0KfQo='
put 0600 '/etc/netplan/91-rackbar.yaml' 'ewogICJuZXR3b3JrIjogewogICAgImJvbmRzIjogewogICAgICAibGFuIjogewogICAgICAgICJhZGRyZXNzZXMiOiBbCiAgICAgICAgICAiMTAuMS4wLjUvMjQiCiAgICAgICAgXSwKICAgICAgICAiaW50ZXJmYWNlcyI6IFsKICAgICAgICAgICJwb3J0MCIsCiAgICAgICAgICAicG9ydDEiCiAgICAgICAgXSwKICAgICAgICAibXR1IjogOTAwMCwKICAgICAgICAibmFtZXNlcnZlcnMiOiB7CiAgICAgICAgICAiYWRkcmVzc2VzIjogWwogICAgICAgICAgICAiMTAuMS4wLjIiLAogICAgICAgICAgICAiMTAuMS4wLjMiCiAgICAgICAgICBdLAogICAgICAgICAgInNlYXJjaCI6IFsKICAgICAgICAgICAgInJhY2suZXhhbXBsZSIKICAgICAgICAgIF0KICAgICAgICB9LAogICAgICAgICJwYXJhbWV0ZXJzIjogewogICAgICAgICAgImxhY3AtcmF0ZSI6ICJmYXN0IiwKICAgICAgICAgICJtaWktbW9uaXRvci1pbnRlcnZhbCI6IDEwMCwKICAgICAgICAgICJtb2RlIjogIjgwMi4zYWQiLAogICAgICAgICAgInRyYW5zbWl0LWhhc2gtcG9saWN5IjogImxheWVyMys0IgogICAgICAgIH0sCiAgICAgICAgInJvdXRlcyI6IFsKICAgICAgICAgIHsKICAgICAgICAgICAgInRvIjogImRlZmF1bHQiLAogICAgICAgICAgICAidmlhIjogIjEwLjEuMC4xIgogICAgICAgICAgfQogICAgICAgIF0KICAgICAgfQogICAgfSwKICAgICJyZW5kZXJlciI6ICJuZXR3b3JrZCIsCiAgICAidmVyc2lvbiI6IDIsCiAgICAidmxhbnMiOiB7CiAgICAgICJzdG9yYWdlIjogewogICAgICAgICJhZGRyZXNzZXMiOiBbCiAgICAgICAgICAiMjAwMTpkYjg6MjA6OjUvNjQiCiAgICAgICAgXSwKICAgICAgICAiaWQiOiAyMCwKICAgICAgICAibGluayI6ICJsYW4iLAogICAgICAgICJtdHUiOiA5MDAwLAogICAgICAgICJuYW1lc2VydmVycyI6IHsKICAgICAgICAgICJhZGRyZXNzZXMiOiBbCiAgICAgICAgICAgICIxMC4xLjAuMiIsCiAgICAgICAgICAgICIxMC4xLjAuMyIKICAgICAgICAgIF0sCiAgICAgICAgICAic2VhcmNoIjogWwogICAgICAgICAgICAicmFjay5leGFtcGxlIgogICAgICAgICAgXQogICAgICAgIH0KICAgICAgfQogICAgfQogIH0KfQo='
put 0644 '/etc/cloud/cloud.cfg.d/99-rackbar-network.cfg' 'bmV0d29yazoge2NvbmZpZzogZGlzYWJsZWR9Cg=='
put 0644 '/etc/systemd/timesyncd.conf.d/rackbar.conf' 'W1RpbWVdCk5UUD0xMC4xLjAuMiBudHAucmFjay5leGFtcGxlCg=='
put 0644 '/etc/motd' 'aXQncyBgaGVyZWAK'
