//! Lists that real programs packed are unpacked, each as its publishers use it.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use rackbar_proxy::index::unpacked;

fn packed(program: &[&str], text: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?} is missing ({error}); `cargo xtask setup test` installs it"));
    let (mut to, text) = (child.stdin.take().unwrap(), text.to_vec());
    let writer = std::thread::spawn(move || to.write_all(&text));
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(done.status.success(), "{program:?}");
    done.stdout
}

#[test]
fn gzip_xz_and_zstandard_are_unpacked_and_bzip2_is_refused_in_words() {
    let text: Vec<u8> = (0..200_000_u32)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect();
    let read = |bytes: &[u8]| {
        let mut out = Vec::new();
        unpacked(bytes, &mut |input| input.read_to_end(&mut out).map(drop)).map(|()| out)
    };
    assert!(read(&text).unwrap() == text);
    for program in [
        &["gzip", "-9"][..],
        &["xz", "-9"],
        &["zstd", "-q", "-19"],
        &["zstd", "-q", "--no-check"],
    ] {
        let bytes = packed(program, &text);
        assert!(bytes.len() < text.len() && read(&bytes).unwrap() == text, "{program:?}");
        let short = read(&bytes[..bytes.len() / 2]).map(|out| out == text);
        assert!(!short.unwrap_or(false), "{program:?}: half of it is not the whole");
    }
    let error = read(b"BZh91AY&SY").unwrap_err().to_string();
    assert!(error.contains("bzip2") && error.contains("Zstandard"), "{error}");
}
