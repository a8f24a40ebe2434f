//! Our client against Debian's OpenSSH server, and against peers that are no SSH server at all.
#![allow(clippy::unwrap_used, reason = "tests")]

mod sshd;

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rackbar_ssh::{ClientKey, HostKeyPair, Program, Session, SshError, Trust, fingerprint};
use sshd::{Sshd, program};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);
const MAX: usize = 64 << 10;

async fn connect(to: &Sshd) -> Session {
    Session::connect(to.addr, &to.user, &to.key, &to.host.public, LIMIT)
        .await
        .unwrap()
}

#[tokio::test]
async fn commands_run_and_say_how_they_ended() {
    let sshd = Sshd::start();
    let session = connect(&sshd).await;
    let out = session
        .run("printf out; printf err >&2; exit 3", b"", LIMIT, MAX)
        .await
        .unwrap();
    assert_eq!(
        (out.status, &*out.stdout, &*out.stderr),
        (Some(3), &b"out"[..], &b"err"[..])
    );
    assert_eq!(out.ending(), "ended with status 3: err");

    let out = session.run("kill -TERM $$", b"", LIMIT, MAX).await.unwrap();
    assert_eq!((out.status, out.signal.as_deref()), (None, Some("TERM")));

    let out = session.run("cat", b"in", LIMIT, MAX).await.unwrap();
    assert!(out.success() && out.text() == "in");
    session.close().await;
}

#[tokio::test]
async fn much_data_flows_both_ways_at_once_and_output_is_bounded() {
    let sshd = Sshd::start();
    let session = connect(&sshd).await;
    let much: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
    let out = session.run("cat", &much, LIMIT, usize::MAX).await.unwrap();
    assert!(out.stdout == much && !out.truncated);

    let out = session
        .run("head -c 5000000 /dev/zero", b"", LIMIT, 1000)
        .await
        .unwrap();
    assert_eq!((out.status, out.stdout.len(), out.truncated), (Some(0), 1000, true));

    // Input that nobody reads does not hold anything up.
    assert!(session.run("exit 0", &much, LIMIT, MAX).await.unwrap().success());
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_left_and_the_session_goes_on() {
    let sshd = Sshd::start();
    let session = connect(&sshd).await;
    let error = session
        .run("cat < /dev/null; tail -f /dev/null", b"", SHORT, MAX)
        .await
        .unwrap_err();
    assert!(matches!(error, SshError::TimedOut { .. }), "{error}");
    assert!(
        error.to_string().contains("did not finish the command within 0.3 s"),
        "{error}"
    );
    assert!(session.run("true", b"", LIMIT, MAX).await.unwrap().success());
}

#[tokio::test]
async fn a_script_is_ended_with_all_it_began_and_killed_when_it_does_not_end() {
    let sshd = Sshd::start();
    let session = connect(&sshd).await;
    let folder = tempfile::tempdir().unwrap();
    for (name, trap) in [("willing", ""), ("deaf", "trap '' TERM\n")] {
        let file = folder.path().join(name);
        let text = format!(
            "#!/bin/sh\n{trap}tail -f /dev/null &\necho $! > {0}.new\nmv {0}.new {0}\nwait\n",
            file.display()
        );
        let begun = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = tokio::time::timeout(LIMIT, session.script(&text, begun, MAX));
        assert_eq!(ended.await.unwrap().unwrap(), None, "{name}");
        let child = std::fs::read_to_string(&file).unwrap();
        let process = std::path::Path::new("/proc").join(child.trim());
        let gone = async {
            while process.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let gone = tokio::time::timeout(LIMIT, gone).await;
        assert!(gone.is_ok(), "{name}: what it began runs on");
    }
    assert!(session.run("true", b"", LIMIT, MAX).await.unwrap().success());
}

/// Waits until what a script wrote into `file` is there, and gives the process that it names.
async fn process_of(file: &Path) -> PathBuf {
    let there = async {
        loop {
            match std::fs::read_to_string(file) {
                Ok(text) if text.ends_with('\n') => return Path::new("/proc").join(text.trim()),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, there).await.expect("it has begun")
}

async fn gone(process: &Path) {
    let gone = async {
        while process.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = tokio::time::timeout(LIMIT, gone).await;
    assert!(gone.is_ok(), "{} runs on", process.display());
}

/// A script that leaves two processes of sessions of their own behind, one of them deaf, and waits; it writes the numbers
/// into `folder`.
fn leaves_its_group(folder: &Path) -> String {
    let child = |name: &str, trap: &str| {
        format!(
            "setsid sh -c '{trap} echo $$ > {0}.new; mv {0}.new {0}; exec tail -f /dev/null' &\n",
            folder.join(name).display()
        )
    };
    format!(
        "#!/bin/sh\n{}{}wait\n",
        child("willing", ""),
        child("deaf", "trap \"\" TERM;")
    )
}

#[tokio::test]
async fn what_left_the_process_group_is_ended_too_and_what_a_step_leaves_behind_in_peace_stays() {
    let sshd = Sshd::start();
    let session = connect(&sshd).await;
    let folder = tempfile::tempdir().unwrap();
    let text = leaves_its_group(folder.path());
    let (willing, deaf) = (folder.path().join("willing"), folder.path().join("deaf"));
    let begun = async {
        process_of(&willing).await;
        process_of(&deaf).await;
    };
    let ended = tokio::time::timeout(LIMIT, session.script(&text, begun, MAX));
    assert_eq!(ended.await.unwrap().unwrap(), None);
    gone(&process_of(&willing).await).await;
    gone(&process_of(&deaf).await).await;

    // A service that a script starts and leaves running is what it was for.
    let stays = folder.path().join("stays");
    let text = format!(
        "#!/bin/sh\nsetsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec tail -f /dev/null' > /dev/null 2>&1 &\n\
         until [ -e {0} ]; do sleep 0.02; done\n",
        stays.display()
    );
    let out = session.script(&text, pending(), MAX).await.unwrap().unwrap();
    let service = process_of(&stays).await;
    assert!(out.success() && service.exists(), "{out:?}");
    let number = service.file_name().unwrap().to_str().unwrap().to_owned();
    let killed = session.run(&format!("kill {number}"), b"", LIMIT, MAX).await.unwrap();
    assert!(killed.success());
}

/// The mark that all of a step's processes carry. The kernel shows no environment of a process that becomes another program
/// at that moment.
async fn mark_of(process: &Path) -> String {
    let end = Instant::now() + LIMIT;
    loop {
        let environment = std::fs::read_to_string(process.join("environ")).unwrap();
        let mut words = environment.split('\0');
        if let Some(mark) = words.find_map(|one| one.strip_prefix("RACKBAR_STEP=")) {
            return mark.to_owned();
        }
        assert!(
            Instant::now() < end,
            "{} has no mark: {environment:?}",
            process.display()
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_script_whose_connection_breaks_is_ended_and_told_as_lost_only_then() {
    let sshd = Sshd::start();
    let session = connect(&sshd).await.with_lease(Duration::from_millis(900));
    let folder = tempfile::tempdir().unwrap();
    let text = leaves_its_group(folder.path());
    let watch = async {
        let processes = [
            process_of(&folder.path().join("willing")).await,
            process_of(&folder.path().join("deaf")).await,
        ];
        // The server of this connection: the script's shell is its child.
        let mark = mark_of(&processes[0]).await;
        sshd.cut();
        (processes, mark)
    };
    let (lost, (processes, mark)) = tokio::join!(session.script(&text, pending(), MAX), watch);
    let error = lost.unwrap_err();
    assert!(matches!(error, SshError::Broken { .. }), "{error}");
    for process in processes {
        assert!(!process.exists(), "{} runs beside the next try", process.display());
    }
    assert!(!Path::new(&mark).exists(), "its folder is left");
}

#[tokio::test]
async fn a_script_that_hears_nothing_for_its_lease_ends_itself() {
    let sshd = Sshd::start();
    let session = connect(&sshd).await;
    // As when the network is gone: nobody says that the connection is, and nothing comes.
    let folder = tempfile::tempdir().unwrap();
    let text = leaves_its_group(folder.path());
    let session = session.with_lease(Duration::from_secs(2));
    let watch = async {
        let willing = process_of(&folder.path().join("willing")).await;
        let deaf = process_of(&folder.path().join("deaf")).await;
        let held = sshd.freeze();
        gone(&willing).await;
        gone(&deaf).await;
        drop(held);
    };
    tokio::select! {
        out = session.script(&text, pending(), MAX) => panic!("it ended before anything was lost: {out:?}"),
        () = watch => {}
    }
}

fn sha256(content: &[u8]) -> String {
    let digest = rackbar_trust::sha256(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_static_program_is_carried_proven_run_and_taken_away() {
    let sshd = Sshd::start();
    let session = connect(&sshd).await;
    let folder = tempfile::tempdir().unwrap();
    let mut content = program(folder.path());
    let digest = sha256(&content);
    let arguments = ["two words", "$(id) '\"\\", ""].map(String::from);
    let own = Program {
        sha256: &digest,
        bytes: content.len() as u64,
        arguments: &arguments,
    };
    let out = session.program(own, &*content, pending(), MAX).await.unwrap().unwrap();
    let text = out.text();
    let (place, rest) = text.split_once('|').unwrap();
    assert_eq!((out.status, rest), (Some(9), "two words|$(id) '\"\\||"));
    assert!(
        place.starts_with('/') && !Path::new(place).parent().unwrap().exists(),
        "{place}"
    );

    // One bit is another program: nothing of it runs.
    content[100] ^= 1;
    let error = session.program(own, &*content, pending(), MAX).await.unwrap_err();
    let SshError::NotRun { reason, .. } = &error else {
        panic!("{error}");
    };
    assert!(reason.contains(&format!("and not {digest}")), "{reason}");
    content[100] ^= 1;

    // What cannot be read to its end is not run either, and the session goes on.
    let short = tokio::io::AsyncReadExt::chain(&content[..5000], Broken);
    let error = session.program(own, short, pending(), MAX).await.unwrap_err();
    assert!(matches!(&error, SshError::NotRun { .. }), "{error}");

    // It can be ended like a script.
    let waits = Program {
        arguments: &["wait".to_owned()],
        ..own
    };
    let at_once = tokio::time::timeout(LIMIT, session.program(waits, &*content, async {}, MAX));
    assert_eq!(at_once.await.unwrap().unwrap(), None);
    assert!(session.run("true", b"", LIMIT, MAX).await.unwrap().success());
}

/// A disk that fails.
struct Broken;

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::Error::other("the disk failed")))
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_result() {
    let sshd = Sshd::start();
    let session = connect(&sshd).await;
    let error = session.run("kill -9 $PPID", b"", LIMIT, MAX).await.unwrap_err();
    assert!(matches!(error, SshError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn scripts_run_untouched_by_any_shell_on_the_way() {
    let sshd = Sshd::start();
    let session = connect(&sshd).await;
    // `cat` would eat the rest if the script came on standard input.
    let text = "#!/bin/sh -e\ncat\nprintf '%s' 'it'\\''s \"$HOME\" `x` \\\\'\nexit 7\n";
    let out = session.script(text, pending(), MAX).await.unwrap().unwrap();
    assert_eq!((out.status, &*out.text()), (Some(7), r#"it's "$HOME" `x` \\"#));
    // Its file is gone afterwards: the script says where it lay.
    let out = session
        .script("#!/bin/sh\nprintf %s \"$0\"\n", pending(), MAX)
        .await
        .unwrap()
        .unwrap();
    assert!(
        out.text().starts_with('/') && !std::path::Path::new(&*out.text()).exists(),
        "{out:?}"
    );
    let error = session.script("echo hello", pending(), MAX).await.unwrap_err();
    assert!(matches!(error, SshError::NoInterpreter(_)), "{error}");
}

#[tokio::test]
async fn another_host_key_ends_it_before_anything_is_sent() {
    let sshd = Sshd::start();
    let other = HostKeyPair::generate("other").unwrap();
    let error = Session::connect(sshd.addr, &sshd.user, &sshd.key, &other.public, LIMIT)
        .await
        .unwrap_err();
    let SshError::OtherHostKey { wanted, seen, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(wanted, rackbar_ssh::fingerprint(&other.public).unwrap());
    assert_eq!(seen, rackbar_ssh::fingerprint(&sshd.host.public).unwrap());
}

#[tokio::test]
async fn a_key_the_server_does_not_know_is_refused_in_words() {
    let sshd = Sshd::start();
    let stranger = ClientKey::generate().unwrap();
    let error = Session::connect(sshd.addr, &sshd.user, &stranger, &sshd.host.public, LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, SshError::LoginRefused { .. }), "{error}");
}

#[tokio::test]
async fn keys_of_ssh_keygen_are_read_and_ours_by_ssh_keygen() {
    let sshd = Sshd::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let keygen = |arguments: &[&str]| {
        let made = std::process::Command::new("ssh-keygen")
            .args(arguments)
            .arg("-f")
            .arg(&path)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap()
    };
    keygen(&["-q", "-t", "ed25519", "-N", ""]);
    let text = rackbar_model::SecretText(std::fs::read_to_string(&path).unwrap());
    let theirs = ClientKey::from_openssh(&text).unwrap().public_openssh().unwrap();
    assert_eq!(
        theirs,
        std::fs::read_to_string(path.with_extension("pub")).unwrap().trim()
    );

    std::fs::write(&path, sshd.key.to_openssh().unwrap().0).unwrap();
    assert_eq!(keygen(&["-y"]).trim(), sshd.key.public_openssh().unwrap());
}

#[tokio::test]
async fn peers_that_are_no_ssh_server_are_told_apart() {
    let key = ClientKey::generate().unwrap();
    let host = HostKeyPair::generate("host").unwrap();
    let to = |addr, limit| Session::connect(addr, "root", &key, &host.public, limit);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let silent = to(addr, SHORT).await.unwrap_err();
    assert!(matches!(silent, SshError::TimedOut { .. }), "{silent}");

    let talk = async {
        let _silent_one = listener.accept().await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    };
    let (wrong, ()) = tokio::join!(to(addr, LIMIT), talk);
    let wrong = wrong.unwrap_err();
    assert!(matches!(wrong, SshError::Broken { .. }), "{wrong}");

    drop(listener);
    let refused = to(addr, LIMIT).await.unwrap_err();
    assert_eq!(refused, SshError::Refused(addr));
}

#[tokio::test]
async fn a_host_that_is_met_is_known_by_its_fingerprint_or_on_a_persons_word() {
    let sshd = Sshd::start();
    let bare: Vec<&str> = sshd.host.public.split_whitespace().take(2).collect();
    let print = fingerprint(&sshd.host.public).unwrap();
    for trust in [Trust::parse(&print).unwrap(), Trust::FirstUse] {
        let met = Session::meet(sshd.addr, &sshd.user, &sshd.key, trust, LIMIT).await;
        let (session, line) = met.unwrap();
        assert_eq!(line, bare.join(" "));
        session.close().await;
        // From now on it is known.
        let known = Session::connect(sshd.addr, &sshd.user, &sshd.key, &line, LIMIT).await;
        known.unwrap().close().await;
    }
    let other = HostKeyPair::generate("other").unwrap();
    let trust = Trust::parse(&fingerprint(&other.public).unwrap()).unwrap();
    let met = Session::meet(sshd.addr, &sshd.user, &sshd.key, trust, LIMIT).await;
    let error = met.unwrap_err();
    let SshError::OtherHostKey { seen, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*seen, print);
    for wrong in [
        "",
        "SHA256:",
        "MD5:00:11",
        &print[..40],
        &format!("{print}x"),
        "SHA256:\u{e4}",
    ] {
        assert!(Trust::parse(wrong).is_err(), "{wrong}");
    }
}
