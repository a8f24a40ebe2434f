//! `autounattend.xml`: passes, components and settings of Windows Setup. All of it is ASCII, because Windows PE's script
//! that fills in the disk reads it byte for byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rackbar_model::FirmwareMode;
use sha2::{Digest as _, Sha256};

use super::xml::{Component, Fields, Node, document, flag, list, text};
use super::{AT, Windows, WindowsImage, words};
use crate::error::Result;
use crate::input::Install;
use crate::quote::base64;

/// Stands for the disk's number until the script in Windows PE knows it; a word is no disk, and Setup stops at it.
const DISK: &str = "RACKBAR_DISK0";

/// At most 255 characters each, which is what Setup takes.
const PLACE: [&str; 2] = [
    "powershell.exe -NoProfile -Command \"$d='C:\\Windows\\Setup\\Scripts';md -Force $d;$x=[xml](gc C:\\Windows\\Panther\\unattend.xml);\
     [IO.File]::WriteAllBytes($d+'\\rackbar.ps1',[Convert]::FromBase64String($x.unattend.Rackbar.InnerText))\"",
    "cmd.exe /c >C:\\Windows\\Setup\\Scripts\\SetupComplete.cmd echo powershell.exe -NoProfile -ExecutionPolicy Bypass -File \
     C:\\Windows\\Setup\\Scripts\\rackbar.ps1",
];

/// The answer file with the script that [`PLACE`] takes out of it.
pub(super) fn file(install: &Install, system: &Windows, script: &str) -> Result<String> {
    let setup = &install.setup;
    let zone = setup.timezone.as_deref().unwrap_or("UTC");
    let zone = words::zone(zone).ok_or_else(|| {
        let reason = format!("{zone} is no zone that CLDR has a Windows name for, or one younger than Server 2019");
        AT.error("setup.timezone", reason, "name another zone with the same clock")
    })?;
    let language = language(install, system)?;
    let mut spoken = vec![(
        "SetupUILanguage",
        Node::Map(vec![("UILanguage", text(&system.language))]),
    )];
    spoken.extend(language());
    let who = vec![("ComputerName", text(&setup.hostname)), ("TimeZone", text(zone))];
    let commands = PLACE.iter().zip(1..).map(|(command, order)| {
        vec![
            ("Order", text(order.to_string())),
            ("Path", text(*command)),
            ("WillReboot", text("Never")),
        ]
    });
    let run = list("RunSynchronousCommand", commands);
    let passes: Vec<(&str, Vec<Component>)> = vec![
        (
            "windowsPE",
            vec![("International-Core-WinPE", spoken), ("Setup", medium(install, system))],
        ),
        (
            "specialize",
            vec![("Shell-Setup", who), ("Deployment", vec![("RunSynchronous", run)])],
        ),
        (
            "oobeSystem",
            vec![
                ("International-Core", language()),
                ("Shell-Setup", first_start(install)),
            ],
        ),
    ];
    Ok(document(passes, &base64(script)))
}

/// Languages and keyboard, for two passes.
fn language(install: &Install, system: &Windows) -> Result<impl Fn() -> Fields> {
    let Some(locale) = words::locale(&install.locale) else {
        return AT.cannot(
            "locale",
            "locales but those of language and country, such as en_GB.UTF-8",
        );
    };
    let Some(keyboard) = words::keyboard(&install.keyboard) else {
        return AT.cannot("keyboard", "this layout: Windows has none by a name of XKB that fits");
    };
    let spoken = system.language.clone();
    Ok(move || {
        vec![
            ("InputLocale", text(keyboard)),
            ("SystemLocale", text(&locale)),
            ("UILanguage", text(&spoken)),
            ("UserLocale", text(&locale)),
        ]
    })
}

/// What is installed, and where.
fn medium(install: &Install, system: &Windows) -> Fields {
    let (key, value) = match &system.image {
        WindowsImage::Index(index) => ("/IMAGE/INDEX", index.to_string()),
        WindowsImage::Name(name) => ("/IMAGE/NAME", name.clone()),
    };
    let image = vec![("Key", text(key)), ("Value", text(value))];
    let (partitions, windows) = partitions(install.firmware);
    let mut disk = vec![("DiskID", text(DISK)), ("WillWipeDisk", flag(true))];
    disk.extend(partitions);
    let target = vec![("DiskID", text(DISK)), ("PartitionID", text(windows))];
    let os = vec![
        ("InstallFrom", list("MetaData", [image])),
        ("InstallTo", Node::Map(target)),
        ("WillShowUI", text("Never")),
    ];
    let mut user = vec![("AcceptEula", flag(true))];
    if let Some(key) = &system.product_key {
        let fields = vec![("Key", text(key.as_str())), ("WillShowUI", text("Never"))];
        user.push(("ProductKey", Node::Map(fields)));
    }
    vec![
        (
            "DiskConfiguration",
            Node::Map(vec![("WillShowUI", text("Never")), ("Disk", Node::Added(disk))]),
        ),
        ("DynamicUpdate", Node::Map(vec![("Enable", flag(false))])),
        ("ImageInstall", Node::Map(vec![("OSImage", Node::Map(os))])),
        ("UserData", Node::Map(user)),
    ]
}

/// Partitions of the disk, and the number of Windows' own.
fn partitions(firmware: FirmwareMode) -> (Fields, &'static str) {
    let create = |order: &str, kind: &str, size: Option<&str>| {
        let size = match size {
            Some(megabytes) => ("Size", text(megabytes)),
            None => ("Extend", flag(true)),
        };
        vec![("Order", text(order)), ("Type", text(kind)), size]
    };
    let format = |order: &str, number: &str, system: &str, label: &str| {
        vec![
            ("Order", text(order)),
            ("PartitionID", text(number)),
            ("Format", text(system)),
            ("Label", text(label)),
        ]
    };
    let (created, mut modified, windows) = match firmware {
        FirmwareMode::Uefi => (
            vec![
                create("1", "EFI", Some("512")),
                create("2", "MSR", Some("16")),
                create("3", "Primary", None),
            ],
            vec![format("1", "1", "FAT32", "System")],
            "3",
        ),
        FirmwareMode::Bios => {
            let mut first = format("1", "1", "NTFS", "System");
            first.push(("Active", flag(true)));
            let created = vec![create("1", "Primary", Some("512")), create("2", "Primary", None)];
            (created, vec![first], "2")
        }
    };
    let mut last = format("2", windows, "NTFS", "Windows");
    last.push(("Letter", text("C")));
    modified.push(last);
    let fields = vec![
        ("CreatePartitions", list("CreatePartition", created)),
        ("ModifyPartitions", list("ModifyPartition", modified)),
    ];
    (fields, windows)
}

/// Nothing is asked for at the first start. The administrator's password stands until the script replaces it, which it does
/// first of all; nobody is told either of the two.
fn first_start(install: &Install) -> Fields {
    let secret = Sha256::digest(format!("rackbar windows administrator {}", install.answers.as_str()));
    // Windows wants letters of both cases, a digit and something else.
    let password = base64(secret) + "aA1!";
    // So Setup has passwords that are not in plain text: UTF-16 with the field's name behind, in base64. It hides nothing.
    let hidden: Vec<u8> = format!("{password}AdministratorPassword")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let password = vec![("Value", text(STANDARD.encode(hidden))), ("PlainText", flag(false))];
    let oobe = vec![("HideEULAPage", flag(true)), ("ProtectYourPC", text("3"))];
    vec![
        ("OOBE", Node::Map(oobe)),
        (
            "UserAccounts",
            Node::Map(vec![("AdministratorPassword", Node::Map(password))]),
        ),
    ]
}
