//! Our client against Debian's OpenSSH server, and against peers that are no SSH server at all.
#![allow(clippy::unwrap_used, reason = "tests")]

mod sshd;

use std::future::pending;
use std::time::Duration;

use rackbar_ssh::{ClientKey, HostKeyPair, Session, SshError};
use sshd::Sshd;
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
