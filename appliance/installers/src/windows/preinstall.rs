//! What runs in Windows PE before Setup: finds the disk, connects the share, starts Setup. And the iPXE script that puts all
//! this into Windows PE's memory.

use rackbar_model::DiskRef;

use super::{Windows, eui};
use crate::input::Install;
use crate::{AnswerFile, NetBoot};

/// Finds the disk. `want` comes before it.
const FIND: &str = include_str!("find.js");

/// What Windows PE starts instead of its own Setup.
const SHELL: &str = "[LaunchApps]\r\n%SYSTEMROOT%\\System32\\cmd.exe, /c %SYSTEMROOT%\\System32\\rackbar.cmd\r\n";

/// Files that are read from the medium, and what wimboot knows them by.
const MEDIUM: [(&str, &str); 3] = [
    ("boot/bcd", "BCD"),
    ("boot/boot.sdi", "boot.sdi"),
    ("sources/boot.wim", "boot.wim"),
];

/// Everything beside the answer file. wimboot puts files that it does not know into `X:\Windows\System32`.
pub(super) fn files(system: &Windows, disk: &DiskRef) -> Vec<AnswerFile> {
    vec![
        AnswerFile::new("winpeshl.ini", SHELL.to_owned()),
        AnswerFile::new("rackbar.cmd", commands(system)),
        AnswerFile::new("rackbar.js", find(disk)),
    ]
}

/// The iPXE script.
pub(super) fn boot(install: &Install, system: &Windows, files: &[AnswerFile]) -> NetBoot {
    let source = system.source.as_str().trim_end_matches('/');
    let mut script = format!("#!ipxe\nkernel {}\n", system.wimboot.as_str());
    let mut fetch = |name: &str, url: String| script.push_str(&format!("initrd --name {name} {url} {name}\n"));
    for (path, name) in MEDIUM {
        fetch(name, format!("{source}/{path}"));
    }
    for file in files {
        fetch(file.name, install.answers.file(file.name));
    }
    script.push_str("boot\n");
    NetBoot::Ipxe {
        script,
        files: MEDIUM.map(|(path, _)| path.to_owned()).to_vec(),
    }
}

fn commands(system: &Windows) -> String {
    let share = &system.share;
    let connect = format!(
        "net use Z: \"{}\" \"{}\" \"/user:{}\" /persistent:no >nul",
        share.path, share.password.0, share.user
    );
    let lines = [
        "@echo off",
        "wpeinit",
        "cscript //nologo //E:jscript X:\\Windows\\System32\\rackbar.js || goto stop",
        "if not exist X:\\rackbar.xml goto stop",
        "set tries=0",
        ":share",
        &format!("{connect} && goto setup"),
        "set /a tries+=1",
        "if %tries% geq 60 goto unreachable",
        // There is no other way to wait in Windows PE.
        "ping -n 4 127.0.0.1 >nul",
        "goto share",
        ":setup",
        "if not exist Z:\\sources\\setup.exe goto unreachable",
        "Z:\\sources\\setup.exe /unattend:X:\\rackbar.xml",
        // Setup restarts the machine itself; where it gave up, its reason stays on the screen.
        "goto stop",
        ":unreachable",
        "echo rackbar: the share with the medium is not to be had",
        ":stop",
        "echo rackbar: the install stops here",
        ":wait",
        "ping -n 3600 127.0.0.1 >nul",
        "goto wait",
        "",
    ];
    lines.join("\r\n")
}

fn find(disk: &DiskRef) -> String {
    let serial = disk.serial.iter().flat_map(|serial| serial.chars());
    let serial: String = serial.filter(char::is_ascii_graphic).collect();
    let eui = eui(disk).unwrap_or_default();
    let [serial, eui] = [serial, eui].map(serde_json::Value::from);
    let bytes = disk.size_bytes.unwrap_or(0);
    format!("var want = {{ serial: {serial}, eui: {eui}, bytes: {bytes} }};\n{FIND}")
}
