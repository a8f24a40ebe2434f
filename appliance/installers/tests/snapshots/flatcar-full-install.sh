#!/bin/sh
set -eu
rackbar_disk() {
  found='';
  for folder in /sys/block/*; do
    name="${folder##*/}";
    case "$name" in loop*|ram*|zram*|sr*|fd*|md*|dm-*|nbd*) continue;; esac;
    serial="$(cat "$folder/device/serial" 2>/dev/null | tr -cd '!-~')";
    if [ -z "$serial" ]; then serial="$(cat "$folder/serial" 2>/dev/null | tr -cd '!-~')"; fi;
    if [ -z "$serial" ]; then serial="$(dd if="$folder/device/vpd_pg80" bs=1 skip=4 2>/dev/null | tr -cd '!-~')"; fi;
    if [ -n "$1" ] && [ "$serial" != "$1" ]; then continue; fi;
    first="$(cat "$folder/wwid" 2>/dev/null | tr -cd '!-~')";
    second="$(cat "$folder/device/wwid" 2>/dev/null | tr -cd '!-~')";
    if [ -n "$2" ] && [ "$first" != "$2" ] && [ "$second" != "$2" ]; then continue; fi;
    if [ -n "$3" ] && [ "$(readlink -f "/dev/disk/by-path/$3")" != "/dev/$name" ]; then continue; fi;
    if [ -n "$4" ] && [ "$(cat "$folder/size")" != "$4" ]; then continue; fi;
    found="$found $name";
  done;
  set -- $found;
  if [ "$#" != 1 ]; then echo "rackbar: $# disks are the one that was planned for; nothing is touched:$found" >&2; return 1; fi;
  echo "/dev/$1";
};
disk0="$(rackbar_disk 'SN0001' 'naa.5000c500a1b2c301' '' '1006632960')" || exit 1;
for name in /dev/'disk/by-id/wwn-0x5000c500a1b2c301'; do
  if [ "$(readlink -f "$name")" != "$disk0" ]; then
    echo "rackbar: $name is not $disk0; nothing is touched" >&2;
    exit 1;
  fi;
done;
flatcar-install -d "$disk0" -V '4230.2.2' -b 'http://10.0.0.2/mirror/flatcar/stable/amd64-usr' -o '' -i /etc/rackbar/system.ign
curl --config /etc/rackbar/done
systemctl --no-block reboot
