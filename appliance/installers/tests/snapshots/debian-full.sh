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
put 0644 '/etc/systemd/network/10-mgmt.link' 'W01hdGNoXQpNQUNBZGRyZXNzPTAyOjAwOjAwOjAwOjAwOjAxClR5cGU9ZXRoZXIKCltMaW5rXQpOYW1lPW1nbXQK'
put 0644 '/etc/systemd/network/10-port0.link' 'W01hdGNoXQpNQUNBZGRyZXNzPTAyOjAwOjAwOjAwOjAwOjAyClR5cGU9ZXRoZXIKCltMaW5rXQpOYW1lPXBvcnQwCg=='
put 0644 '/etc/systemd/network/10-port1.link' 'W01hdGNoXQpNQUNBZGRyZXNzPTAyOjAwOjAwOjAwOjAwOjAzClR5cGU9ZXRoZXIKCltMaW5rXQpOYW1lPXBvcnQxCg=='
put 0644 '/etc/systemd/network/40-mgmt.network' 'W01hdGNoXQpOYW1lPW1nbXQKCltOZXR3b3JrXQpESENQPXllcwpETlM9MTAuMS4wLjIKRE5TPTEwLjEuMC4zCkRvbWFpbnM9cmFjay5leGFtcGxlCgpbREhDUHY0XQpDbGllbnRJZGVudGlmaWVyPW1hYwo='
put 0644 '/etc/systemd/network/20-lan.netdev' 'W05ldERldl0KTmFtZT1sYW4KS2luZD1ib25kCgpbQm9uZF0KTW9kZT04MDIuM2FkCkxBQ1BUcmFuc21pdFJhdGU9ZmFzdApUcmFuc21pdEhhc2hQb2xpY3k9bGF5ZXIzKzQKTUlJTW9uaXRvclNlYz0xMDBtcwo='
put 0644 '/etc/systemd/network/30-port0.network' 'W01hdGNoXQpOYW1lPXBvcnQwCgpbTGlua10KUmVxdWlyZWRGb3JPbmxpbmU9bm8KCltOZXR3b3JrXQpCb25kPWxhbgo='
put 0644 '/etc/systemd/network/30-port1.network' 'W01hdGNoXQpOYW1lPXBvcnQxCgpbTGlua10KUmVxdWlyZWRGb3JPbmxpbmU9bm8KCltOZXR3b3JrXQpCb25kPWxhbgo='
put 0644 '/etc/systemd/network/40-lan.network' 'W01hdGNoXQpOYW1lPWxhbgoKW0xpbmtdCk1UVUJ5dGVzPTkwMDAKCltOZXR3b3JrXQpBZGRyZXNzPTEwLjEuMC41LzI0CkdhdGV3YXk9MTAuMS4wLjEKRE5TPTEwLjEuMC4yCkROUz0xMC4xLjAuMwpEb21haW5zPXJhY2suZXhhbXBsZQpWTEFOPXN0b3JhZ2UK'
put 0644 '/etc/systemd/network/20-storage.netdev' 'W05ldERldl0KTmFtZT1zdG9yYWdlCktpbmQ9dmxhbgoKW1ZMQU5dCklkPTIwCg=='
put 0644 '/etc/systemd/network/40-storage.network' 'W01hdGNoXQpOYW1lPXN0b3JhZ2UKCltMaW5rXQpNVFVCeXRlcz05MDAwCgpbTmV0d29ya10KQWRkcmVzcz0yMDAxOmRiODoyMDo6NS82NApETlM9MTAuMS4wLjIKRE5TPTEwLjEuMC4zCkRvbWFpbnM9cmFjay5leGFtcGxlCg=='
put 0644 '/etc/network/interfaces' 'YXV0byBsbwppZmFjZSBsbyBpbmV0IGxvb3BiYWNrCg=='
systemctl enable systemd-networkd.service systemd-resolved.service
update-initramfs -u
put 0644 '/etc/systemd/timesyncd.conf.d/rackbar.conf' 'W1RpbWVdCk5UUD0xMC4xLjAuMiBudHAucmFjay5leGFtcGxlCg=='
put 0644 '/etc/motd' 'aXQncyBgaGVyZWAK'
