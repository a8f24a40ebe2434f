//! The proxy killed in the middle of storing, and on a disk that is full. The proxy is a child here: this very program,
//! told by an environment variable to be one.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::*;
use rackbar_proxy::Settings;

const CHILD: &str = "RACKBAR_PROXY_CHILD";

/// Not a test of its own: what the others start. Says where it listens, and serves until it is killed.
#[test]
fn child() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let words: Vec<&str> = words.split('\n').collect();
    let origin = Origin {
        address: words[1].parse().unwrap(),
        ..Origin::start()
    };
    let settings = Settings {
        budget: words[2].parse().unwrap(),
        ..settings(&[&origin])
    };
    let under = under(Path::new(words[0]), settings);
    println!("\nlistening {}", under.address);
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}

struct Running {
    child: Child,
    address: SocketAddr,
}

/// `mount`: a tmpfs of this size is mounted on the folder first, in a namespace of the child's own.
fn start(folder: &Path, origin: &Origin, budget: u64, mount: Option<&str>) -> Running {
    let program = std::env::current_exe().unwrap();
    let mut command = match mount {
        None => Command::new(&program),
        Some(size) => {
            let mut command = Command::new("unshare");
            let script = "mount -t tmpfs -o size=$1 full \"$2\" && shift 2 && exec \"$@\"";
            command
                .args(["-rm", "sh", "-c", script, "sh", size])
                .arg(folder)
                .arg(&program);
            command
        }
    };
    let mut child = command
        .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
        .env(CHILD, format!("{}\n{}\n{budget}", folder.display(), origin.address))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let said = lines.find_map(|line| line.strip_prefix("listening ").map(str::to_owned));
    let address = said.expect("the child did not say where it listens").parse().unwrap();
    Running { child, address }
}

impl Running {
    /// The content as far as it came.
    fn get(&self, url: &str) -> Vec<u8> {
        // It may have been killed by now.
        let Ok(mut stream) = TcpStream::connect(self.address) else {
            return Vec::new();
        };
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let _ = write!(stream, "GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let at = all
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map_or(all.len(), |at| at + 4);
        all.split_off(at)
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn killed_while_storing_it_opens_again_and_serves_nothing_that_is_not_whole() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let big = bytes(8 << 20, 21);
    origin.put(
        "/debian/big",
        Doc {
            slow: Some(8 << 20),
            ..doc(big.clone())
        },
    );
    let small = |number: u64| bytes(20_000, 1001 + 2 * number);
    (0..200).for_each(|number| origin.put(&format!("/debian/{number}"), doc(small(number))));
    for round in 0..6u64 {
        let running = start(folder.path(), &origin, 1 << 30, None);
        std::thread::scope(|scope| {
            let all = scope.spawn(|| {
                for number in round * 30..200 {
                    running.get(&origin.url(&format!("/debian/{number}")));
                }
            });
            let mut stream = TcpStream::connect(running.address).unwrap();
            write!(stream, "GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/debian/big")).unwrap();
            let mut some = vec![0; 100_000 * (usize::try_from(round).unwrap() + 1)];
            stream.read_exact(&mut some).unwrap();
            kill_now(&running.child);
            drop(all);
        });
        running.kill();
    }
    let running = start(folder.path(), &origin, 1 << 30, None);
    assert_eq!(std::fs::read_dir(folder.path().join("arriving")).unwrap().count(), 0);
    let before = origin.seen.lock().unwrap().len();
    for number in 0..200 {
        assert!(
            running.get(&origin.url(&format!("/debian/{number}"))) == small(number),
            "{number}"
        );
    }
    assert!(running.get(&origin.url("/debian/big")) == big);
    let after = origin.seen.lock().unwrap().len();
    assert!(after - before < 201, "nothing was kept over six kills");
}

fn kill_now(child: &Child) {
    let status = Command::new("kill").args(["-9", &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn on_a_full_disk_everything_still_passes_through() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let large = bytes(24 << 20, 22);
    origin.put("/debian/known", doc(large.clone()));
    origin.put(
        "/debian/chunked",
        Doc {
            chunked: true,
            ..doc(large.clone())
        },
    );
    let small = bytes(100_000, 23);
    origin.put("/debian/small", doc(small.clone()));
    // The budget is larger than the disk, so that it is the disk that is full.
    let running = start(folder.path(), &origin, 64 << 20, Some("16m"));
    for _ in 0..2 {
        assert!(running.get(&origin.url("/debian/known")) == large);
    }
    assert_eq!(origin.requests("/debian/known"), 2);
    // What says no length is found too large on the way: that client is cut off, the next ones get it.
    let curl = |path: &str| {
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "--max-time",
            "60",
            "--noproxy",
            "",
            "-x",
            &format!("http://{}", running.address),
        ]);
        let output = curl.arg(origin.url(path)).output().unwrap();
        (output.status.success(), output.stdout)
    };
    let (whole, got) = curl("/debian/chunked");
    assert!(!whole && got.len() < large.len());
    let (whole, got) = curl("/debian/chunked");
    assert!(whole && got == large);
    for _ in 0..2 {
        assert!(running.get(&origin.url("/debian/small")) == small);
    }
    assert_eq!(origin.requests("/debian/small"), 1, "what fits is still stored");
}

/// An ext4 file system in a file, mounted until this goes.
struct Disk {
    image: std::path::PathBuf,
    at: std::path::PathBuf,
}

impl Disk {
    /// `None` where nobody may mount one. It writes names down every five minutes when it is not told to.
    fn mount(image: &Path, at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop,commit=300"]).arg(image).arg(at);
        let mounted = mount.output().unwrap();
        if !mounted.status.success() {
            eprintln!("not shown: {}", String::from_utf8_lossy(&mounted.stderr));
            return None;
        }
        Some(Self {
            image: image.to_owned(),
            at: at.to_owned(),
        })
    }

    /// What would be on it if the power went now.
    fn cut(&self, image: &Path, at: &Path) -> Self {
        std::fs::copy(&self.image, image).unwrap();
        Self::mount(image, at).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

#[test]
fn what_is_pinned_or_kept_for_a_lock_is_there_after_a_power_cut_in_the_next_moment() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    std::fs::File::create(at("disk")).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(at("disk")).status();
    assert!(made.unwrap().success());
    let Some(disk) = Disk::mount(&at("disk"), &at("mounted")) else {
        return;
    };
    let (pinned, kept) = (bytes(300_000, 31), bytes(200_000, 33));
    origin.put("/debian/pinned", doc(pinned.clone()));
    origin.put("/own/pool/kept.deb", doc(kept.clone()));
    let threads = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let one = rackbar_proxy::Promised {
        path: "pool/kept.deb".into(),
        sum: rackbar_upstream::Sum::Sha256(rackbar_trust::sha256(&kept)),
        bytes: None,
    };
    // A small budget leaves a small disk its room.
    let settings = Settings {
        budget: 8 << 20,
        ..settings(&[&origin])
    };
    let running = under(&at("mounted/cache"), settings.clone());
    let proxy = running.handle.proxy();
    threads.block_on(proxy.pin("mirror:debian/pinned")).unwrap();
    let first = disk.cut(&at("first"), &at("after-pin"));
    // As the daemon does it.
    proxy.pin_held("ours").unwrap();
    threads
        .block_on(proxy.hold("ours", &origin.url("/own/"), &one))
        .unwrap();
    threads.block_on(proxy.settle()).unwrap();
    let second = disk.cut(&at("second"), &at("after-lock"));
    drop(running);
    origin.down.store(true, std::sync::atomic::Ordering::SeqCst);
    for (disk, keys) in [
        (&first, &["mirror:debian/pinned"][..]),
        (&second, &["locked:ours/pool/kept.deb", "mirror:debian/pinned"]),
    ] {
        let after = under(&disk.at.join("cache"), settings.clone());
        let list = after.handle.proxy().list();
        let there: Vec<&str> = list
            .iter()
            .filter(|item| item.pinned)
            .map(|item| item.key.as_str())
            .collect();
        assert_eq!(there, keys);
        assert_eq!(after.handle.proxy().verify().damaged, 0);
        assert!(after.get("/mirror/debian/pinned") == pinned);
    }
}
