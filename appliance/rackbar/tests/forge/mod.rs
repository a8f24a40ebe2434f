//! An origin of Git repositories on loopback: the real `git http-backend` behind a small server, which can be told to lie.
#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]

#[path = "../../../git/tests/real/mod.rs"]
mod real;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

pub use real::{fed, git, well};

/// What becomes of an answer of the real one: its head and body, by the request's path.
pub type Lie = Arc<dyn Fn(&str, String, Vec<u8>) -> (String, Vec<u8>) + Send + Sync>;

/// The origin, with one repository that commits are made in.
pub struct Forge {
    pub folder: tempfile::TempDir,
    at: std::net::SocketAddr,
    lie: Arc<Mutex<Option<Lie>>>,
}

impl Forge {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path().join("ours");
        std::fs::create_dir(&work).unwrap();
        well(&work, &["init", "-q"]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let lie: Arc<Mutex<Option<Lie>>> = Arc::default();
        let (root, lies) = (folder.path().to_owned(), lie.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (root, lies) = (root.clone(), lies.clone());
                // A client that goes away is no failure of a test.
                std::thread::spawn(move || stream.and_then(|stream| answer(stream, &root, &lies)));
            }
        });
        Self { folder, at, lie }
    }

    pub fn url(&self) -> String {
        format!("http://{}/ours/.git", self.at)
    }

    pub fn work(&self) -> PathBuf {
        self.folder.path().join("ours")
    }

    /// Makes a commit in which a file has this text; gives its name.
    pub fn commit(&self, path: &str, text: &str) -> String {
        let file = self.work().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        well(&self.work(), &["add", "."]);
        well(&self.work(), &["commit", "-q", "-m", text.lines().next().unwrap()]);
        well(&self.work(), &["rev-parse", "HEAD"])
    }

    /// From now on every answer is what this makes of it.
    pub fn lie(&self, lie: impl Fn(&str, String, Vec<u8>) -> (String, Vec<u8>) + Send + Sync + 'static) {
        *self.lie.lock().unwrap() = Some(Arc::new(lie));
    }

    pub fn tell_the_truth(&self) {
        *self.lie.lock().unwrap() = None;
    }
}

fn answer(mut stream: TcpStream, root: &Path, lies: &Mutex<Option<Lie>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut backend = Command::new("git");
    backend
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("REQUEST_METHOD", &method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query);
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "content-type" => {
                backend.env("CONTENT_TYPE", value);
            }
            "git-protocol" => {
                backend.env("GIT_PROTOCOL", value);
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    backend.env("CONTENT_LENGTH", length.to_string());
    let mut child = backend
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    child.stdin.take().unwrap().write_all(&body)?;
    let output = child.wait_with_output()?.stdout;
    let end = output
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap_or(output.len());
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let body = output.get(end + 4..).unwrap_or_default().to_vec();
    let status = head
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))
        .unwrap_or("200 OK");
    let head = format!("HTTP/1.1 {status}\r\n{head}\r\n");
    let lie = lies.lock().unwrap().clone();
    let (head, body) = match lie {
        Some(lie) => lie(path, head, body),
        None => (head, body),
    };
    // A lie may say another length itself.
    let length = match head.contains("Content-Length") {
        true => String::new(),
        false => format!("Content-Length: {}\r\n", body.len()),
    };
    stream.write_all(format!("{head}{length}Connection: close\r\n\r\n").as_bytes())?;
    stream.write_all(&body)
}
