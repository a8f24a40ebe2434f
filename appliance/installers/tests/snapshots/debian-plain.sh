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
keys 'root' 'c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUo0eXI4RGdQR2pZSlhuTFNZS2xHSUFReHdkenpIVnN4cDdSSjJtUCtnQ2sgb3BzQHJhY2sK'
put 0644 '/etc/systemd/network/10-mgmt.link' 'W01hdGNoXQpNQUNBZGRyZXNzPTAyOjAwOjAwOjAwOjAwOjAxClR5cGU9ZXRoZXIKCltMaW5rXQpOYW1lPW1nbXQK'
put 0644 '/etc/systemd/network/40-mgmt.network' 'W01hdGNoXQpOYW1lPW1nbXQKCltOZXR3b3JrXQpESENQPXllcwoKW0RIQ1B2NF0KQ2xpZW50SWRlbnRpZmllcj1tYWMK'
put 0644 '/etc/network/interfaces' 'YXV0byBsbwppZmFjZSBsbyBpbmV0IGxvb3BiYWNrCg=='
systemctl enable systemd-networkd.service systemd-resolved.service
update-initramfs -u
