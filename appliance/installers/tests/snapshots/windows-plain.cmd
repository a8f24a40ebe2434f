@echo off
wpeinit
cscript //nologo //E:jscript X:\Windows\System32\rackbar.js || goto stop
if not exist X:\rackbar.xml goto stop
set tries=0
:share
net use Z: "\\10.0.0.2\media\windows-2022" "Only-Reads.1" "/user:reader" /persistent:no >nul && goto setup
set /a tries+=1
if %tries% geq 60 goto unreachable
ping -n 4 127.0.0.1 >nul
goto share
:setup
if not exist Z:\sources\setup.exe goto unreachable
Z:\sources\setup.exe /unattend:X:\rackbar.xml
goto stop
:unreachable
echo rackbar: the share with the medium is not to be had
:stop
echo rackbar: the install stops here
:wait
ping -n 3600 127.0.0.1 >nul
goto wait
