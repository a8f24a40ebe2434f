//! What several tests use.

// The lint allows unwrapping in test functions only, not in what they share.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

/// A server of one file that gives at most `burst` bytes on a connection, then drops it.
pub(crate) fn serve(file: Vec<u8>, burst: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/image", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let tag = rackbar_trust::sha256(&file)[0];
        while let Ok((stream, _)) = listener.accept() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut stream = stream;
            let mut left = burst;
            while left > 0 {
                let header: Vec<String> = lines
                    .by_ref()
                    .map_while(|line| line.ok().filter(|l| !l.is_empty()))
                    .collect();
                let Some(range) = header.iter().find_map(|line| line.strip_prefix("Range: bytes=")) else {
                    break;
                };
                let (from, to) = range.split_once('-').unwrap();
                let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
                let body = &file[from..=to.min(file.len() - 1)];
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nETag: \"{tag}\"\r\nContent-Length: {length}\r\nContent-Range: bytes {from}-{to}/{}\r\n\r\n",
                    file.len()
                );
                let now = length.min(left);
                if stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(&body[..now]))
                    .is_err()
                {
                    break;
                }
                left -= now;
            }
        }
    });
    url
}
