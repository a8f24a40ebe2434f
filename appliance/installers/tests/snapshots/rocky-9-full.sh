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
put 0440 '/etc/sudoers.d/90-rackbar-ops' 'b3BzIEFMTD0oQUxMOkFMTCkgTk9QQVNTV0Q6IEFMTAo='
put 0440 '/etc/sudoers.d/90-rackbar-alice' 'YWxpY2UgQUxMPShBTEw6QUxMKSBBTEwK'
put 0444 '/etc/machine-id' 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYK'
put 0644 '/etc/rsyslog.d/90-rackbar.conf' 'Ki4qIEAxMC4wLjAuMjo1MTQK'
put 0644 '/etc/systemd/network/10-mgmt.link' 'W01hdGNoXQpNQUNBZGRyZXNzPTAyOjAwOjAwOjAwOjAwOjAxClR5cGU9ZXRoZXIKCltMaW5rXQpOYW1lPW1nbXQK'
put 0644 '/etc/systemd/network/10-port0.link' 'W01hdGNoXQpNQUNBZGRyZXNzPTAyOjAwOjAwOjAwOjAwOjAyClR5cGU9ZXRoZXIKCltMaW5rXQpOYW1lPXBvcnQwCg=='
put 0644 '/etc/systemd/network/10-port1.link' 'W01hdGNoXQpNQUNBZGRyZXNzPTAyOjAwOjAwOjAwOjAwOjAzClR5cGU9ZXRoZXIKCltMaW5rXQpOYW1lPXBvcnQxCg=='
put 0644 '/etc/NetworkManager/conf.d/90-rackbar.conf' 'W2dsb2JhbC1kbnNdCnNlYXJjaGVzPXJhY2suZXhhbXBsZQo='
sed -i '/^proxy=/d' /etc/dnf/dnf.conf
printf 'proxy=%s\n' 'http://10.0.0.2:3128' >> /etc/dnf/dnf.conf
put 0644 '/etc/motd' 'aXQncyBgaGVyZWAK'
if [ -x /usr/sbin/restorecon ]; then /usr/sbin/restorecon -RF /etc /root; fi
