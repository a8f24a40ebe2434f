# Sets the system up when Windows has started for the first time, as SYSTEM and before anybody can log in. Every value from
# outside is in single quotes or in base64. Names of groups and accounts differ between languages, so they stand as SIDs.
$ErrorActionPreference = 'Stop'
$Scripts = 'C:\Windows\Setup\Scripts'
$Ssh = 'C:\ProgramData\ssh'

function Text([string]$Encoded) {
  [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($Encoded))
}
function Native([string]$Program, [string[]]$Arguments) {
  & $Program @Arguments | Out-Null
  if ($LASTEXITCODE -ne 0) { throw "$Program ended with $LASTEXITCODE" }
}
# The token stands in a file, because every process may read arguments.
function Ask([int]$Tries, [string]$Config) {
  $path = "$Scripts\rackbar-ask"
  [IO.File]::WriteAllText($path, (Text $Config))
  $heard = $false
  for ($try = 1; $try -le $Tries -and -not $heard; $try++) {
    if ($try -gt 1) { Start-Sleep -Seconds 5 }
    & curl.exe --config $path | Out-Null
    $heard = $LASTEXITCODE -eq 0
  }
  Remove-Item -Force $path
  $heard
}
function Tell([string]$Config) {
  Ask 3 $Config | Out-Null
}
function Done([string]$Config) {
  if (-not (Ask 60 $Config)) { throw 'nobody heard that the installation is done' }
}
function Secret {
  $bytes = New-Object byte[] 32
  [Security.Cryptography.RandomNumberGenerator]::Create().GetBytes($bytes)
  ConvertTo-SecureString ([Convert]::ToBase64String($bytes) + 'aA1!') -AsPlainText -Force
}
function Administrator {
  $own = Get-LocalUser | Where-Object { $_.SID.Value -like 'S-1-5-21-*-500' }
  Set-LocalUser -SID $own.SID -Password (Secret)
}
function Account([string]$Name, [string]$Person) {
  $more = @{}
  if ($Person) { $more.FullName = $Person }
  New-LocalUser -Name $Name -Password (Secret) -PasswordNeverExpires @more | Out-Null
  Add-LocalGroupMember -SID 'S-1-5-32-544' -Member $Name
}
function Nic([string]$Mac, [string]$Name) {
  $all = @(Get-NetAdapter -Physical | Where-Object { $_.MacAddress -eq $Mac })
  if ($all.Count -ne 1) { throw "$($all.Count) interfaces have the MAC address $Mac" }
  if ($all[0].Name -ne $Name) { Rename-NetAdapter -Name $all[0].Name -NewName $Name }
  $all[0].ifIndex
}
function Mtu([int]$Nic, [int]$Bytes) {
  Set-NetIPInterface -InterfaceIndex $Nic -NlMtuBytes $Bytes
}
function Address([int]$Nic, [string]$Ip, [int]$Prefix) {
  Set-NetIPInterface -InterfaceIndex $Nic -AddressFamily IPv4 -Dhcp Disabled
  New-NetIPAddress -InterfaceIndex $Nic -IPAddress $Ip -PrefixLength $Prefix | Out-Null
}
function Gateway([int]$Nic, [string]$Ip) {
  $everything = '0.0.0.0/0'
  if ($Ip.Contains(':')) { $everything = '::/0' }
  New-NetRoute -InterfaceIndex $Nic -DestinationPrefix $everything -NextHop $Ip | Out-Null
}
function Resolvers([int]$Nic, [string[]]$Ips) {
  Set-DnsClientServerAddress -InterfaceIndex $Nic -ServerAddresses $Ips
}
function Domain([string]$Name) {
  $key = 'HKLM:\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters'
  Set-ItemProperty $key -Name 'NV Domain' -Value $Name
  Set-ItemProperty $key -Name 'Domain' -Value $Name
}
function Clock([string]$Peers) {
  Set-Service w32time -StartupType Automatic
  Start-Service w32time
  Native w32tm.exe @('/config', "/manualpeerlist:$Peers", '/syncfromflags:manual', '/update')
}
function Proxy([string]$Server) {
  Native netsh.exe @('winhttp', 'set', 'proxy', "proxy-server=$Server", 'bypass-list=<local>')
  $policy = 'HKLM:\SOFTWARE\Policies\Microsoft\Windows\CurrentVersion\Internet Settings'
  New-Item -Force $policy | Out-Null
  Set-ItemProperty $policy -Name ProxySettingsPerUser -Type DWord -Value 0
  $key = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Internet Settings'
  Set-ItemProperty $key -Name ProxyServer -Value $Server
  Set-ItemProperty $key -Name ProxyOverride -Value '<local>'
  Set-ItemProperty $key -Name ProxyEnable -Type DWord -Value 1
}
# The first start makes folder, configuration and keys, with the rights that sshd demands; what is written into a file later
# leaves its rights as they are.
function Sshd {
  if (-not (Get-Service sshd -ErrorAction SilentlyContinue)) {
    Add-WindowsCapability -Online -Name 'OpenSSH.Server~~~~0.0.1.0' | Out-Null
  }
  Set-Service sshd -StartupType Automatic
  Start-Service sshd
  for ($try = 1; $try -le 30 -and -not (Test-Path "$Ssh\sshd_config"); $try++) { Start-Sleep -Seconds 1 }
  Stop-Service sshd
  $config = [IO.File]::ReadAllText("$Ssh\sshd_config")
  [IO.File]::WriteAllText("$Ssh\sshd_config", "PasswordAuthentication no`n" + $config)
  New-NetFirewallRule -Name 'rackbar-sshd' -DisplayName 'sshd' -Direction Inbound -Protocol TCP -LocalPort 22 -Action Allow | Out-Null
}
function HostKey([string]$Private, [string]$Public) {
  [IO.File]::WriteAllText("$Ssh\ssh_host_ed25519_key", (Text $Private))
  [IO.File]::WriteAllText("$Ssh\ssh_host_ed25519_key.pub", (Text $Public))
}
function Keys([string]$All) {
  $path = "$Ssh\administrators_authorized_keys"
  [IO.File]::WriteAllText($path, (Text $All))
  Native icacls.exe @($path, '/inheritance:r', '/grant', '*S-1-5-32-544:F', '*S-1-5-18:F')
}
function Work {
  Administrator
  $nic = Nic '02-00-00-00-00-01' 'mgmt'
  Sshd
  Keys 'c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUo0eXI4RGdQR2pZSlhuTFNZS2xHSUFReHdkenpIVnN4cDdSSjJtUCtnQ2sgb3BzQHJhY2sK'
  Start-Service sshd
  Done 'dXJsID0gImh0dHA6Ly8xMC4wLjAuMi9ib290L3YxL2luc3RhbGxlZC8wMTIzYWJjZCIKbm9wcm94eSA9ICIqIgpnbG9ib2ZmCmZhaWwKc2lsZW50CnNob3ctZXJyb3IKbWF4LXRpbWUgPSAyMApvdXRwdXQgPSAiTlVMIgo='
}
function Failed {
}
try {
  Work
} catch {
  $_ | Out-String | Out-File 'C:\Windows\Setup\rackbar.log'
  Failed
} finally {
  Remove-Item -Force -ErrorAction SilentlyContinue 'C:\Windows\Panther\unattend*.xml'
  Remove-Item -Force -Recurse -ErrorAction SilentlyContinue "$Scripts\*"
}
